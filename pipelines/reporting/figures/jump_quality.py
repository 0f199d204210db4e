"""How good jumps are as images: five measures over σ, beside real and denoised images."""

from collections.abc import Iterator, Sequence

from pipelines.files.study_files import Model, Result, order
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import label, marker, shade
from uvb.measure.quality import MEASURES

Found = Sequence[tuple[Model, Result]]
TITLES = {
    "frechet": "Fréchet distance (0 is best)",
    "precision": "precision: jumps that look like data",
    "recall": "recall: data that jumps reach",
    "density": "density: jumps where data is dense",
    "coverage": "coverage: data with a jump nearby",
}


def draw(found: Found, measure: str) -> Chart:
    """One measure over σ: jumps, second jumps and denoised test images of each model, and the test images."""
    series = []
    for name in dict.fromkeys(model.spec.model for model, _ in found):
        own = [(m, r) for m, r in found if m.spec.model == name]
        for images, said, dash, hollow in (
            ("jumps", "jumps", (), False),
            ("second jumps", "two jumps", (5, 3), False),
            ("denoised", "x̂(y) of test images", (1, 3), True),
        ):
            look = {"colour": shade(name), "marker": marker(name)}
            series.append(_series(own, images, measure, f"{label(name)}, {said}", dash=dash, hollow=hollow, **look))
    series.append(_series(found[:1], "test images", measure, "test images", colour="ink", marker="x"))
    return lines(series, "σ", TITLES[measure])


@register("jump_quality", title="Quality of jumps", needs="jump_quality", order=54)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a measure, for each data set and seed."""
    tasks = ("jump_quality", "jump_quality_over_sigma")
    every = {m.spec_id: (m, r) for task in tasks for m, r in study.files.of_models(task)}
    groups: dict[tuple[str, int], list[tuple[Model, Result]]] = {}
    for model, result in every.values():
        groups.setdefault((model.spec.data.name, model.spec.seed), []).append((model, result))
    for (data, seed), found in groups.items():
        found.sort(key=lambda pair: order(pair[0].spec))
        told = [f"{label(m.spec.model)}, σ = {m.spec.sigma:g}: {r.values['message']}." for m, r in found if r.values["message"]]
        sound = [(m, r) for m, r in found if r.values["rows"]]
        for measure in MEASURES if sound else ():
            count = sound[0][1].values["rows"][0]["count"]
            caption = (
                f"{data}: {TITLES[measure]}, of {count} jumps a model against training images, in the features of the study’s "
                f"classifier. Test images are the floor, x̂(y) of test images what jumps can be at best. Bars are one standard "
                f"error, jackknifed over chains. {' '.join(told)}"
            )
            yield Picture(f"quality_{measure}_{data}_{seed}", caption.strip(), draw(sound, measure), f"{measure} over sigma")


def _series(
    found: Found, images: str, measure: str, name: str, *, dash: tuple[int, ...] = (), hollow: bool = False, colour: str,
    marker: str,
) -> Series:  # fmt: skip
    rows = [(m.spec.sigma, row) for m, r in found for row in r.values["rows"] if row["images"] == images]
    values, errors = [row[measure] for _, row in rows], [row[f"{measure}_stderr"] for _, row in rows]
    low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
    return Series(name, [s for s, _ in rows], values, low, high, colour, marker, dash, hollow)
