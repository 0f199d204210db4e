"""Equation 21: how convex the energy is between points at distance R or farther."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.reporting.figures import Picture, Study, named, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import label, marker, shade

Pairs = Sequence[Sequence[float]]


def draw(bound: Pairs, measured: Pairs, model: str, exact: Pairs = ()) -> Chart:
    """Three lines of [R, m] pairs: the bound, the exact energy's convexity, and the model's."""
    kinds: list[tuple[Pairs, dict[str, Any]]] = [
        (bound, {"name": "(1 − √d/R)/σ², bound of the exact energy", "colour": "faint", "dash": (6, 3)}),
        (exact, {"name": "exact energy, smallest seen", "dash": (1, 3)}),
        (measured, {"name": f"{label(model)}, smallest seen", "colour": shade(model), "marker": marker(model)}),
    ]
    series = [Series(x=[r for r, _ in pairs], y=[m for _, m in pairs], **look) for pairs, look in kinds]
    return lines(series, "distance R", "convexity m", height=160)


@register("convexity", title="Convexity outside a ball", paper="Eq. 21", needs="convexity", order=90)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each model."""
    for model, result in study.of_models("convexity"):
        values = result.values
        caption = f"{named(model.spec)}. “Smallest seen” means the smallest among pairs of points at distance R or farther."
        caption += " A learned energy need not satisfy the bound."
        figure = draw(values["bound"], values["measured"], model.spec.model, values.get("exact", ()))
        yield Picture(f"convexity_{model.spec_id}", caption, figure)
