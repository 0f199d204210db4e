"""Equation 21: how convex the energy is between points further apart than R."""

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import FAINT, INK, colour, label, legend, marker, plot
from pipelines.reporting.headlines import level

Pairs = Sequence[Sequence[float]]


def draw(bound: Pairs, measured: Pairs, model: str, exact: Pairs = ()) -> Figure:
    """All as [R, m] pairs."""
    figure, axes = plot(2.6)
    if bound:
        axes.plot(*zip(*bound, strict=True), color=FAINT, linestyle="--", label="(1 − √d/R)/σ², bound of the exact energy")
    if exact:
        axes.plot(*zip(*exact, strict=True), color=INK, linestyle=":", label="exact energy, smallest seen")
    if measured:
        style: dict[str, Any] = {"color": colour(model), "marker": marker(model)}
        axes.plot(*zip(*measured, strict=True), label=f"{label(model)}, smallest seen", **style)
    axes.set_xlabel("distance R")
    axes.set_ylabel("m")
    legend(axes)
    return figure


@register("convexity", title="Convexity outside a ball", paper="Eq. 21", needs="convexity", order=90)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model."""
    for model, result in study.files.of_models("convexity"):
        spec, values = model.spec, result.values
        caption = f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}. A learned energy need not keep the bound."
        figure = draw(values["bound"], values["measured"], spec.model, values.get("exact", ()))
        yield Picture(f"convexity_{spec.spec_id}", caption, figure)
