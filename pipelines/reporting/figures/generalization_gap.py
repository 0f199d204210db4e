"""Remark 3 and open question 2: test loss minus training loss, over sigma."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, lines, of_model
from pipelines.reporting.statistics import main_models


def draw(losses: pd.DataFrame) -> Chart:
    """One data set's gaps. A gap's error combines the errors of both splits, which have different images."""
    series = []
    for model in main_models(losses):
        own = losses[losses["model"] == model].set_index("sigma").sort_index()
        train, test = own[own["split"] == "train"].align(own[own["split"] == "test"], join="inner", axis=0)
        gap, error = test["loss"] - train["loss"], np.hypot(test["stderr"], train["stderr"])
        paper = (test["paper_loss"] - train["paper_loss"]).dropna()
        series.append(of_model(model, gap.index, gap, error))
        series.append(of_model(model, paper.index, paper, what=", paper", dash=(2, 3), hollow=True))
    return lines(series, "noise level σ", "test loss − train loss", zero=True)


@register("generalization_gap", title="Generalization gap", paper="Remark 3", needs="losses", order=20)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each data set that was measured on both splits."""
    for dataset, group in study.main_losses.groupby("dataset"):
        if set(group["split"]) == {"train", "test"}:
            caption = (
                f"{dataset}. The two splits have different images, and some images are harder to denoise than others. The "
                "error bars include this difference."
            )
            yield Picture(f"generalization_gap_{dataset}", caption, draw(group), "generalization gap over sigma")
