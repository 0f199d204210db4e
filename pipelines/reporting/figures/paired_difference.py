"""The paired difference of the test losses over sigma, with its 95 % interval (Sec. 3.2)."""

from collections.abc import Iterator

import pandas as pd

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Ends, Series, lines
from pipelines.reporting.figures.style import label, marker, shade
from pipelines.reporting.statistics import interval, main_group, main_models


def draw(pairs: pd.DataFrame, domain: Ends | None = None, across: Ends | None = None) -> Chart:
    """One data set's differences on one split: the loss of each first model minus the loss of the second model.

    The second model is the same in all pairs. `domain` and `across` are the ends of the vertical and of the horizontal axis.
    """
    opponent = pairs["second"].iloc[0]
    models, series = main_models(pairs, "first"), []
    for model in models:
        at = {float(sigma): interval(group) for sigma, group in pairs[pairs["first"] == model].groupby("sigma")}
        mean, low, high = (list(part) for part in zip(*at.values(), strict=True))
        name = f"{label(model)} − {label(opponent)}"
        series.append(Series(name, list(at), mean, low, high, shade(model), marker(model)))
    first = label(models[0]) if len(models) == 1 else "the other model"
    sides = (f"{first} ahead", f"{label(opponent)} ahead")
    title = "difference of the test losses"
    return lines(series, "noise level σ", title, zero=True, sides=sides, domain=domain, across=across)


@register("paired_difference", title="Who is ahead", paper="Sec. 3.2", needs="losses of two models trained alike", order=5)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each data set that has pairs."""
    for dataset, pairs in main_pairs(study.tables["pairs"], study.tables["losses"], study.files.asked):
        alone = pairs.groupby(["first", "sigma"])["seed"].nunique().max() == 1
        over = "images only, since each model was trained once" if alone else "images and trainings"
        caption = (
            f"{dataset}. Losses are compared image by image, with the same noise. Below zero, the first-named model has the "
            f"lower test loss. Bars are 95 % intervals over {over}."
        )
        yield Picture(f"paired_difference_{dataset}", caption, draw(pairs), "paired difference of test losses over sigma")


def main_pairs(pairs: pd.DataFrame, losses: pd.DataFrame, asked: frozenset[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each data set and its pairs to draw: UVB and its most frequent opponent, on the test split, in the main condition.

    If UVB is the first model of no pair: every model and the most frequent second model. `main_group` chooses the condition.
    """
    main = set(main_group(losses, asked)["spec_id"])
    for dataset, group in pairs[(pairs["split"] == "test") & pairs["first_id"].isin(main)].groupby("dataset"):
        two = group[group["first"] == "uvb"]
        shown = two if len(two) else group
        yield str(dataset), shown[shown["second"] == shown["second"].mode().iloc[0]]
