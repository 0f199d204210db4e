"""A Gaussian mixture, where the optimum is known: how near each model came."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import FAINT, colour, label, plot
from pipelines.reporting.headlines import level


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The excess loss as a share of (mean predictor - optimum), a bar a model, one standard error."""
    figure, axes = plot(0.8 + 0.35 * len(rows))
    for index, row in enumerate(rows):
        whole = row["mean_predictor"] - row["optimum"]
        share, error = ((row["loss"] - row["optimum"]) / whole, row["stderr"] / whole)
        axes.barh(index, 100 * share, 0.55, xerr=100 * error, color=colour(row["model"]), ecolor=FAINT, capsize=2)
    axes.set_yticks(range(len(rows)), [label(row["model"]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("excess loss, % of the way from the optimum to the mean predictor")
    axes.grid(axis="y", visible=False)
    return figure


@register("mixture", title="A mixture with a known optimum", paper="", needs="mixture", order=95)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a noise level."""
    levels: dict[float, list[Mapping[str, Any]]] = {}
    for model, result in study.files.of_models("mixture"):
        levels.setdefault(model.spec.sigma, []).extend(result.values["rows"])
    for sigma, rows in sorted(levels.items()):
        errors = "; ".join(f"{label(r['model'])} {r['score_error']:.2g}" for r in rows)
        caption = f"σ = {level(sigma)}. Mean squared error of the learned score, E‖s(y) − ∇log p(y)‖²: {errors}."
        yield Picture(f"mixture_{sigma:g}", caption, draw(rows))
