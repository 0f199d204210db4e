"""Compute the numbers of each data set's headline, which compares two models. `templates/headline.j2` has the words."""

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from pipelines.reporting.numbers import decimals
from pipelines.reporting.statistics import CONDITION, interval, main_group, main_models, own_estimator


@dataclass(frozen=True)
class Difference:
    """Mean of (first - second) over images and seeds, with its 95 % interval."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    digits: int  # decimals that the error allows
    seeds: int
    spread: float | None  # s.d. over seeds


@dataclass(frozen=True)
class Levels:
    """How many noise levels have an interval below zero, above zero, or around zero (undecided)."""

    below: int
    above: int
    undecided: int
    one_training: bool  # each interval is over the images of one training only


@dataclass(frozen=True)
class Headline:
    """Two models at the largest noise level of a data set: UVB and DEEN if the study has both."""

    row: pd.Series  # the first model's row of the losses table, which also has the losses of the exact answers
    first: float  # the first model's test loss
    second: float  # the second model's test loss
    difference: Difference
    images: int
    levels: Levels | None
    conditions: int  # how many conditions (`CONDITION`: recipe, batch size, ...) the data set's models were trained in
    others: tuple[Difference, ...]

    @property
    def digits(self) -> int:
        return max(2, self.difference.digits - 1)


@dataclass(frozen=True)
class LoneHeadline:
    """The best model at the largest noise level of a data set that has no pair."""

    row: pd.Series  # its row of the losses table
    conditions: int

    @property
    def digits(self) -> int:
        return decimals(self.row["stderr"])


def all_headlines(losses: pd.DataFrame, pairs: pd.DataFrame, asked: Collection[str] = ()) -> list[Headline | LoneHeadline]:
    """One headline for each data set. Those that compare two models come first."""
    compared = headlines(losses, pairs, asked)
    done = {headline.row["dataset"] for headline in compared}
    return [*compared, *(lone for lone in lone_headlines(losses, asked) if lone.row["dataset"] not in done)]


def headlines(losses: pd.DataFrame, pairs: pd.DataFrame, asked: Collection[str] = ()) -> list[Headline]:
    """One headline for each data set that has a pair. Differences of several seeds are averaged (`interval`)."""
    ids = set(main_group(losses, asked)["spec_id"])
    pairs = pairs[(pairs["split"] == "test") & pairs["first_id"].isin(ids)]
    test = own_estimator(losses[losses["split"] == "test"]).set_index("spec_id", drop=False)
    return [_headline(group, test, losses) for _, group in pairs.groupby("dataset", sort=True)]


def _headline(pairs: pd.DataFrame, test: pd.DataFrame, losses: pd.DataFrame) -> Headline:
    seconds = {m: set(pairs.loc[pairs["first"] == m, "second"]) for m in main_models(pairs, "first")}
    # The opponent is UVB, or DEEN if the model has no pair with UVB.
    opponents = {m: "uvb" if "uvb" in found else "deen" for m, found in seconds.items() if found & {"uvb", "deen"}}
    (one, two), *rest = opponents.items()
    swept = _of(pairs, one, two)
    sigma = float(swept["sigma"].max())
    top, here = swept[swept["sigma"] == sigma], pairs[pairs["sigma"] == sigma]
    others = [_difference(at) for first, second in rest if len(at := _of(here, first, second))]
    first, second = (float(test.loc[list(top[column]), "loss"].mean()) for column in ("first_id", "second_id"))
    row, images = test.loc[top["first_id"].iloc[0]], int(top["images"].iloc[0])
    return Headline(row, first, second, _difference(top), images, _levels(swept), _conditions(losses, row), tuple(others))


def lone_headlines(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[LoneHeadline]:
    """Each data set's best loss at its largest noise level, in its main condition."""
    found = []
    for _, group in own_estimator(main_group(losses[losses["split"] == "test"], asked)).groupby("dataset", sort=True):
        top = group[group["sigma"] == group["sigma"].max()]
        best = top.loc[top["loss"].idxmin()]
        found.append(LoneHeadline(best, _conditions(losses, best)))
    return found


def _difference(pairs: pd.DataFrame) -> Difference:
    seeds, row = int(pairs["seed"].nunique()), pairs.iloc[0]
    spread = float(pairs["difference"].std()) if seeds > 1 else None
    return Difference(row["first"], row["second"], *interval(pairs), decimals(pairs["stderr"].mean()), seeds, spread)


def _levels(pairs: pd.DataFrame) -> Levels | None:
    found = [interval(at) for _, at in pairs.groupby("sigma")]
    if len(found) < 2:
        return None
    below, above = sum(high < 0 for _, _, high in found), sum(low > 0 for _, low, _ in found)
    alone = bool(pairs.groupby("sigma")["seed"].nunique().max() == 1)
    return Levels(below, above, len(found) - below - above, alone)


def _conditions(losses: pd.DataFrame, row: pd.Series) -> int:
    """In how many conditions models were trained on the row's data set."""
    return losses[losses["dataset"] == row["dataset"]].groupby(CONDITION).ngroups


def _of(pairs: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    return pairs[(pairs["first"] == first) & (pairs["second"] == second)]
