"""NEBULA (Sec. 3.3.1): two gradient steps of size sigma squared, and the attractor of the gradient flow."""

from collections.abc import Iterator

import numpy as np

from pipelines.files.study_files import WALK
from pipelines.reporting.figures import Picture, Study, named, register
from pipelines.reporting.figures.chart import WIDTH, Chart, Series, lines
from pipelines.reporting.figures.images import rows_of_images
from pipelines.reporting.figures.style import label, shade
from pipelines.reporting.figures.walk_jump import trust

ROWS = {
    "noisy": "noisy y", "step1": "one step of σ², x̂(y)", "step2": "two steps, x̂(x̂(y))", "attractor": "attractor",
}  # fmt: skip

SHOWN_STAYS = 1000  # a figure shows at most this many stays in a class, and therefore fewer images if they change class often
WORDED = 1 / 40  # a stay in a class is labelled if it lasts this share of the flow or longer


def draw_energy(energy: np.ndarray, model: str) -> Chart:
    """The energy (steps, N) along the flow: the mean, and the range of the middle nine tenths of the images."""
    steps = list(range(len(energy)))
    series = [Series("mean over images", steps, np.nanmean(energy, axis=1), colour=shade(model))]
    for name, share in (("5 %", 0.05), ("95 %", 0.95)):
        end = np.nanquantile(energy, share, axis=1)
        series.append(Series(f"{name} of the images", steps, end, colour="faint", dash=(4, 3)))
    return lines(series, "step of the gradient flow", "energy, nats", height=140)


def draw_classes(classes: np.ndarray, shown: int = 20) -> Chart:
    """The class (steps, N) of x̂ along the flow, one row per image. A tooltip tells the class."""
    # the number of stays of the first image, of the first two, ...
    stays = np.cumsum([1 + np.count_nonzero(np.diff(row)) for row in classes.T[:shown]])
    shown = max(1, int(np.searchsorted(stays, SHOWN_STAYS, side="right")))
    rows = [
        {"image": image + 1, "from": begin, "to": end, "class": str(int(classes[begin, image]))}
        for image in range(min(shown, classes.shape[1]))
        for begin, end in _stays(classes[:, image])
    ]
    x = {"field": "from", "type": "quantitative", "title": "step of the gradient flow", "scale": {"domainMax": len(classes)}}
    y = {"field": "image", "type": "ordinal", "title": "image", "axis": {"grid": False}}
    colour = {"field": "class", "type": "nominal", "legend": None, "scale": {"scheme": "tableau10"}}
    tooltip = [{"field": "class"}, {"field": "from"}, {"field": "to"}]
    places = {"y": y, "x": x, "x2": {"field": "to"}}
    bar = {"mark": {"type": "bar", "opacity": 0.7}, "encoding": {**places, "color": colour, "tooltip": tooltip}}
    mark = {"type": "text", "align": "left", "dx": 3, "fontSize": 9, "clip": True}
    long = [{"filter": f"datum.to - datum.from >= {WORDED * len(classes)}"}]
    words = {"mark": mark, "transform": long, "encoding": {"y": y, "x": x, "text": {"field": "class"}}}
    return Chart({"width": WIDTH, "height": {"step": 15}, "data": {"values": rows}, "layer": [bar, words]})


def _stays(classes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Beginning and end of each stay in one class, from the classes (steps,) of one image."""
    changes = [0, *(np.flatnonzero(np.diff(classes)) + 1).tolist(), len(classes)]
    yield from zip(changes, changes[1:], strict=False)


@register("nebula", title="Attractors of the energy", paper="Sec. 3.3.1", needs="nebula", order=70)
def pictures(study: Study) -> Iterator[Picture]:
    """For each model: images, and the energy and the class along the flow."""
    walks = study.files.results(WALK)  # the walks measured how often the classifier is right
    for model, result in study.of_models("nebula"):
        spec, arrays, values = model.spec, result.arrays, result.values
        believed = trust(walks[model.spec_id].values) if model.spec_id in walks else ""
        caption, who = f"{named(spec)}.", f"{label(spec.model)} on {spec.data.name}"
        before, after = values.get("labels_before"), values.get("labels_after")
        if before and after:
            moved = sum(a != b for a, b in zip(before, after, strict=True))
            caption += f" {moved} of {len(before)} images changed class between x̂(y) and the attractor.{believed}"
        ended = values.get("converged")
        if ended and not all(ended):
            caption += f" {len(ended) - sum(ended)} of {len(ended)} flows had not come to rest."
        yield Picture(f"nebula_{spec.spec_id}", caption, rows_of_images([(text, arrays[row]) for row, text in ROWS.items()]))
        if "energy" in arrays:
            figure = draw_energy(arrays["energy"], spec.model)
            yield Picture(f"nebula_energy_{spec.spec_id}", f"{who}. Energy along the flow.", figure)
        if "classes" in arrays and len(arrays["classes"]) > 1:
            caption = f"{who}. Class of x̂(y) along the flow, with a row for each of the first images.{believed}"
            yield Picture(f"nebula_classes_{spec.spec_id}", caption, draw_classes(arrays["classes"]))
