"""What was found: the paired difference of the test losses over sigma with its 95 % interval (Sec. 3.2)."""

from collections.abc import Iterator

import pandas as pd

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import label, marker, shade
from pipelines.reporting.statistics import interval, main_group, main_models


def draw(pairs: pd.DataFrame, domain: tuple[float, float] | None = None) -> Chart:
    """Differences of one data set and split: a line for each first model, of those against the most frequent second."""
    opponent = pairs["second"].mode().iloc[0]
    pairs = pairs[pairs["second"] == opponent]
    series = []
    for model in main_models(pairs.rename(columns={"first": "model"})):
        own = pairs[pairs["first"] == model]
        at = {float(sigma): interval(group) for sigma, group in own.groupby("sigma")}
        means, low, high = (list(part) for part in zip(*at.values(), strict=True))
        name = f"{label(model)} − {label(opponent)}"
        series.append(Series(name, list(at), means, low, high, shade(model), marker(model)))
    ahead = f"↑ {label(opponent)} has the lower loss"
    behind = f"↓ {label(series_name(pairs))} has the lower loss"
    notes = ((0.0, -7.0, ahead), (0.0, 8.0, behind))
    return lines(series, "noise level σ", "difference of the test losses", zero=True, notes=notes, domain=domain)


def series_name(pairs: pd.DataFrame) -> str:
    """The one first model, or what to call several."""
    models = main_models(pairs.rename(columns={"first": "model"}))
    return models[0] if len(models) == 1 else "the other model"


@register("paired_difference", title="Who is ahead", paper="Sec. 3.2", needs="losses of two models trained alike", order=5)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a data set that has pairs: of UVB and DEEN, or of what else is compared."""
    for dataset, pairs in main_pairs(study.tables["pairs"], study.tables["losses"], study.files.asked):
        caption = (
            f"{dataset}. Image by image on the same noise: below zero the first has the lower test loss. Bars are 95 % "
            f"intervals, {over_what(pairs)}."
        )
        yield Picture(f"paired_difference_{dataset}", caption, draw(pairs), "paired difference of test losses over sigma")


def main_pairs(pairs: pd.DataFrame, losses: pd.DataFrame, asked: frozenset[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Of each data set the pairs of its main condition on the test split: UVB less DEEN alone where that is there."""
    if losses.empty or pairs.empty:
        return
    main = set(main_group(losses, asked)["spec_id"])
    for dataset, group in pairs[(pairs["split"] == "test") & pairs["first_id"].isin(main)].groupby("dataset"):
        two = group[group["first"] == "uvb"]
        yield str(dataset), two if len(two) else group


def over_what(pairs: pd.DataFrame) -> str:
    """What the intervals are over."""
    alone = pairs.groupby(["first", "sigma"])["seed"].nunique().max() == 1
    return "over images of one training each; another training may differ by more" if alone else "over images and trainings"
