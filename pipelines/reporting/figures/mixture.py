"""How near each model came to the known optimum of a Gaussian mixture."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, bars
from pipelines.reporting.figures.style import label, shade
from pipelines.reporting.numbers import level


def draw(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """(loss - optimum) / (loss of the mean predictor - optimum), in percent. One bar per model, with one standard error."""
    ways = [row["mean_predictor"] - row["optimum"] for row in rows]
    shares = [100 * (row["loss"] - row["optimum"]) / way for row, way in zip(rows, ways, strict=True)]
    errors = [100 * row["stderr"] / way for row, way in zip(rows, ways, strict=True)]
    models = [row["model"] for row in rows]
    axis = "excess loss, % of the way from the optimum to the mean predictor"
    return bars([label(m) for m in models], shares, errors, [shade(m) for m in models], axis)


@register("mixture", title="A mixture with a known optimum", needs="mixture", order=95)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each noise level."""
    levels: dict[float, list[Mapping[str, Any]]] = {}
    for model, result in study.of_models("mixture"):
        levels.setdefault(model.spec.sigma, []).extend(result.values["rows"])
    for sigma, rows in sorted(levels.items()):
        errors = "; ".join(f"{label(r['model'])} {r['score_error']:.2g}" for r in rows)
        caption = f"σ = {level(sigma)}. Mean squared error of the learned score, E‖s(y) − ∇log p(y)‖²: {errors}."
        yield Picture(f"mixture_{sigma:g}", caption, draw(rows))
