"""Tables 2 and 3 as a plot: the loss over sigma of each model, the exact reference, and the paper's lines."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import FAINT, colour, label, legend, marker, plot
from pipelines.reporting.headlines import main_group, main_models, over_seeds, own_estimator

_REFERENCE = {"train": ("floor", "floor (exact)"), "test": ("nonparametric", "non-parametric")}


def draw(losses: pd.DataFrame, split: str) -> Figure:
    """One data set's losses on one split, as `over_seeds` gives them; bars are one standard error."""
    figure, axes = plot()
    rows = losses[losses["split"] == split]
    for model in main_models(rows):
        own = rows[rows["model"] == model].sort_values("sigma")
        axes.errorbar(
            own["sigma"], own["loss"], own["stderr"], color=colour(model), marker=marker(model), label=label(model), capsize=2
        )
        paper = own.dropna(subset=["paper_loss"])
        if len(paper):
            style: dict[str, Any] = {
                "color": colour(model),
                "linestyle": ":",
                "marker": marker(model),
                "markerfacecolor": "none",
            }
            axes.plot(paper["sigma"], paper["paper_loss"], label=f"{label(model)}, paper", **style)
    column, name = _REFERENCE[split]
    reference = rows.dropna(subset=[column]).groupby("sigma")[column].first()
    if len(reference):
        axes.plot(reference.index, reference, color=FAINT, linestyle="--", marker="", label=name)
    axes.set_xlabel("noise level σ")
    axes.set_ylabel(f"{split} loss, E‖x − x̂(y)‖²")
    axes.set_ylim(bottom=0)
    legend(axes)
    return figure


@register("loss_over_sigma", title="Loss over the noise level", paper="Tables 2–3", needs="losses", order=10)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a data set and split."""
    losses = study.tables["losses"]
    if losses.empty:
        return
    table = over_seeds(own_estimator(main_group(losses, study.files.asked)))
    for dataset, group in table.groupby("dataset"):
        for split in ("test", "train"):
            if (group["split"] == split).any():
                about = (
                    "the training set's exact posterior mean" if split == "test" else "the exact floor no model can go under"
                )
                caption = f"{dataset}, {split} split. Bars are one standard error, clustered by image; dashed: {about}."
                if group["paper_loss"].notna().any():
                    caption += " Dotted: the paper's figures."
                yield Picture(f"loss_over_sigma_{dataset}_{split}", caption, draw(group, split), f"{split} loss over sigma")
