"""Remark 3 and open question 2: test loss less training loss, over sigma."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import FAINT, colour, label, legend, marker, plot
from pipelines.reporting.headlines import main_group, main_models, over_seeds, own_estimator


def draw(losses: pd.DataFrame) -> Figure:
    """One data set's gaps; the standard error joins those of both splits, whose images differ."""
    figure, axes = plot(2.9)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    for model in main_models(losses):
        split = losses[losses["model"] == model].set_index(["split", "sigma"]).sort_index()
        if not {"train", "test"} <= set(split.index.get_level_values(0)):
            continue
        train, test = split.loc["train"].align(split.loc["test"], join="inner", axis=0)
        gap, error = test["loss"] - train["loss"], np.hypot(test["stderr"], train["stderr"])
        axes.errorbar(gap.index, gap, error, color=colour(model), marker=marker(model), label=label(model), capsize=2)
        paper = (test["paper_loss"] - train["paper_loss"]).dropna()
        if len(paper):
            style: dict[str, Any] = {
                "color": colour(model),
                "linestyle": ":",
                "marker": marker(model),
                "markerfacecolor": "none",
            }
            axes.plot(paper.index, paper, label=f"{label(model)}, paper", **style)
    axes.set_xlabel("noise level σ")
    axes.set_ylabel("test loss − train loss")
    legend(axes)
    return figure


@register("generalization_gap", title="Generalization gap", paper="Remark 3", needs="losses", order=20)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a data set that was measured on both splits."""
    losses = study.tables["losses"]
    if losses.empty:
        return
    for dataset, group in over_seeds(own_estimator(main_group(losses, study.files.asked))).groupby("dataset"):
        if set(group["split"]) == {"train", "test"}:
            caption = f"{dataset}. The two splits hold different images, so the bars include how hard those are."
            yield Picture(f"generalization_gap_{dataset}", caption, draw(group), "generalization gap over sigma")
