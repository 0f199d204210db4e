"""Loss against parameters: what each model makes of more capacity (`tune_spaces/paper/capacity.py`)."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import label, marker, shade
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import CONDITION, main_models, over_seeds, own_estimator


def draw(losses: pd.DataFrame, column: str = "parameters", name: str = "parameters, dim(ϑ)") -> Chart:
    """Losses of one data set at one sigma over a column; test is the full line, train the dashed one."""
    series = []
    for model in main_models(losses):
        for split, dash in (("test", ()), ("train", (5, 3))):
            own = losses[(losses["model"] == model) & (losses["split"] == split)].sort_values(column)
            ends = list(own["loss"] - own["stderr"]), list(own["loss"] + own["stderr"])
            look: dict[str, Any] = {"colour": shade(model), "marker": marker(model), "hollow": split == "train"}
            x = own[column].astype(float)
            series.append(Series(f"{label(model)}, {split}", list(x), list(own["loss"]), *ends, dash=dash, **look))
    return lines(series, name, "loss, E‖x − x̂(y)‖²", log_x=True)


@register("loss_over_capacity", title="Loss over capacity", needs="losses at several widths", order=26)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a data set, condition and sigma at which models were trained with several numbers of parameters."""
    losses = study.tables["losses"]
    if losses.empty:
        return
    for key, group in over_seeds(own_estimator(losses)).groupby(["dataset", "sigma", *CONDITION]):
        sizes = group.groupby("model")["parameters"].nunique()
        group = group[group["model"].isin(sizes.index[sizes > 1])]
        if len(group):
            dataset, sigma, recipe, activation, batch = key[:5]
            about = f"{dataset}, σ = {level(sigma)}, recipe {recipe}, {activation}, batch {batch}."
            name = "_".join(["loss_over_capacity", *map(str, key)])
            yield Picture(name, f"{about} Bars are one standard error.", draw(group), "loss over parameters")
