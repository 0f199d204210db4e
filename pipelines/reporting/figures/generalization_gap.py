"""Remark 3 and open question 2: test loss less training loss, over sigma."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import label, marker, shade
from pipelines.reporting.statistics import main_group, main_models, over_seeds, own_estimator


def draw(losses: pd.DataFrame) -> Chart:
    """One data set's gaps. The standard error joins those of both splits, whose images differ."""
    series = []
    for model in main_models(losses):
        own = losses[losses["model"] == model].set_index("sigma").sort_index()
        train, test = own[own["split"] == "train"].align(own[own["split"] == "test"], join="inner", axis=0)
        gap, error = test["loss"] - train["loss"], np.hypot(test["stderr"], train["stderr"])
        look: dict[str, Any] = {"colour": shade(model), "marker": marker(model)}
        series.append(Series(label(model), list(gap.index), list(gap), list(gap - error), list(gap + error), **look))
        paper = (test["paper_loss"] - train["paper_loss"]).dropna()
        series.append(Series(f"{label(model)}, paper", list(paper.index), list(paper), dash=(2, 3), hollow=True, **look))
    return lines(series, "noise level σ", "test loss − train loss", zero=True)


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
