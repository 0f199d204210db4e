"""Loss against parameters: what each model makes of more capacity (`tune_spaces/capacity.py`)."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import colour, label, legend, marker, plot
from pipelines.reporting.headlines import CONDITION, level, main_models, over_seeds, own_estimator


def draw(losses: pd.DataFrame) -> Figure:
    """Losses of one data set at one sigma; test is the full line, train the dashed one."""
    figure, axes = plot()
    for model in main_models(losses):
        for split, line in (("test", "-"), ("train", "--")):
            own = losses[(losses["model"] == model) & (losses["split"] == split)].sort_values("parameters")
            axes.errorbar(
                own["parameters"].astype(float), own["loss"], own["stderr"], label=f"{label(model)}, {split}", capsize=2,
                color=colour(model), marker=marker(model), linestyle=line,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("parameters, dim(ϑ)")
    axes.set_ylabel("loss, E‖x − x̂(y)‖²")
    legend(axes)
    return figure


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
            caption = (
                f"{dataset}, σ = {level(sigma)}, recipe {recipe}, {activation}, batch {batch}. Bars are one standard error."
            )
            yield Picture("_".join(["loss_over_capacity", *map(str, key)]), caption, draw(group), "loss over parameters")
