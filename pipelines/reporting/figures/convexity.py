"""Equation 21: how convex the energy is between points further apart than R."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import label, marker, shade
from pipelines.reporting.numbers import level

Pairs = Sequence[Sequence[float]]


def draw(bound: Pairs, measured: Pairs, model: str, exact: Pairs = ()) -> Chart:
    """All as [R, m] pairs."""
    kinds: tuple[tuple[Pairs, str, dict[str, Any]], ...] = (
        (bound, "(1 − √d/R)/σ², bound of the exact energy", {"colour": "faint", "dash": (6, 3)}),
        (exact, "exact energy, smallest seen", {"dash": (1, 3)}),
        (measured, f"{label(model)}, smallest seen", {"colour": shade(model), "marker": marker(model)}),
    )
    series = [Series(name, [r for r, _ in pairs], [m for _, m in pairs], **look) for pairs, name, look in kinds]
    return lines(series, "distance R", "m", height=160)


@register("convexity", title="Convexity outside a ball", paper="Eq. 21", needs="convexity", order=90)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model."""
    for model, result in study.files.of_models("convexity"):
        spec, values = model.spec, result.values
        caption = f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}. A learned energy need not keep the bound."
        figure = draw(values["bound"], values["measured"], spec.model, values.get("exact", ()))
        yield Picture(f"convexity_{spec.spec_id}", caption, figure)
