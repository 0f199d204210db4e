"""Plot five measures of image quality over σ: of jumps, of denoised test images, and of test images."""

from collections.abc import Iterator
from typing import Any

from pipelines.reporting.figures import Found, Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, around, lines
from pipelines.reporting.figures.style import label, marker, shade
from uvb.measure.quality import MEASURES

TITLES = {
    "frechet": "Fréchet distance (0 is best)",
    "precision": "precision: jumps that look like data",
    "recall": "recall: data that jumps reach",
    "density": "density: jumps where data is dense",
    "coverage": "coverage: data with a jump nearby",
}
IMAGES = {  # the name in the results -> the name in the figure, the dash of its line, whether its markers are hollow
    "jumps": ("jumps", (), False),
    "second jumps": ("two jumps", (5, 3), False),
    "denoised": ("x̂(y) of test images", (1, 3), True),
}


def draw(found: Found, measure: str) -> Chart:
    """One measure over σ: jumps, second jumps and denoised test images of each model, and the test images."""
    series = []
    for name in dict.fromkeys(model.spec.model for model, _ in found):
        own, look = [(m, r) for m, r in found if m.spec.model == name], {"colour": shade(name), "marker": marker(name)}
        for images, (said, dash, hollow) in IMAGES.items():
            series.append(_series(own, images, measure, f"{label(name)}, {said}", dash=dash, hollow=hollow, **look))
    series.append(_series(found[:1], "test images", measure, "test images", marker="x"))
    return lines(series, "σ", TITLES[measure])


@register("jump_quality", title="Quality of jumps", needs="jump_quality", order=54)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each measure, data set and seed."""
    for data, seed, found in study.by_data("jump_quality", "jump_quality_over_sigma"):
        told = [f"{label(m.spec.model)}, σ = {m.spec.sigma:g}: {r.values['message']}." for m, r in found if r.values["message"]]
        sound = [(m, r) for m, r in found if r.values["rows"]]
        for measure in MEASURES if sound else ():
            count = sound[0][1].values["rows"][0]["count"]
            caption = (
                f"{data}: {TITLES[measure]}. {count} jumps of each model are compared with training images, in the features of "
                "the study’s classifier. Test images show the value of real images. If the energy were perfect and the chains "
                "had converged, jumps would have the same value as x̂(y) of test images. Bars are one standard error over "
                f"chains. {' '.join(told)}"
            )
            yield Picture(f"quality_{measure}_{data}_{seed}", caption.strip(), draw(sound, measure), f"{measure} over sigma")


def _series(found: Found, images: str, measure: str, name: str, **look: Any) -> Series:
    rows = [(m.spec.sigma, row) for m, r in found for row in r.values["rows"] if row["images"] == images]
    values, errors = [row[measure] for _, row in rows], [row[f"{measure}_stderr"] for _, row in rows]
    return around(name, [sigma for sigma, _ in rows], values, errors, **look)
