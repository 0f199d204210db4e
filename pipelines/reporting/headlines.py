"""The headline of each data set, as numbers: two models at the largest noise level. `templates/headline.j2` words it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipelines.reporting.numbers import decimals
from pipelines.reporting.numbers import level as level
from pipelines.reporting.statistics import CONDITION, interval, main_group, main_models, own_estimator


@dataclass(frozen=True)
class Difference:
    """Mean of (first - second) over images and seeds, with its 95 % interval."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    digits: int  # decimals that its error allows
    seeds: int
    spread: float | None  # s.d. over seeds


@dataclass(frozen=True)
class Levels:
    """At how many noise levels the interval lies below zero, above it, or on both sides."""

    below: int
    above: int
    undecided: int
    one_training: bool  # each interval is over images of one training

    @property
    def total(self) -> int:
        return self.below + self.above + self.undecided


@dataclass(frozen=True)
class Condition:
    """The condition that a headline is of, where the study has several."""

    count: int
    recipe: str
    activation: str
    batch_size: int
    train_images: int
    epochs: int


@dataclass(frozen=True)
class References:
    """What needs no training, on the same images: the exact posterior mean of the training set, and the mean image."""

    nonparametric: float | None
    mean_image: float | None


@dataclass(frozen=True)
class Headline:
    """Two models at the largest noise level of a data set; UVB and DEEN where both are there."""

    dataset: str
    sigma: float
    first: float  # test losses
    second: float
    difference: Difference
    images: int
    held_out: bool  # the split is held out of the training images: a search's
    levels: Levels | None
    references: References
    condition: Condition | None
    others: tuple[Difference, ...]

    @property
    def digits(self) -> int:
        return max(2, self.difference.digits - 1)


@dataclass(frozen=True)
class LoneHeadline:
    """The best model at the largest noise level of a data set, where no two are compared."""

    dataset: str
    sigma: float
    model: str
    loss: float
    stderr: float
    held_out: bool
    paper_loss: float | None
    references: References
    condition: Condition | None

    @property
    def digits(self) -> int:
        return decimals(self.stderr)


def headlines(losses: pd.DataFrame, pairs: pd.DataFrame, asked: Collection[str] = ()) -> list[Headline]:
    """One headline for each data set that has a pair; over several seeds the differences are averaged (`interval`)."""
    ids = set(main_group(losses, asked)["spec_id"])
    pairs = pairs[(pairs["split"] == "test") & pairs["first_id"].isin(ids)]
    test = own_estimator(losses[losses["split"] == "test"]).set_index("spec_id")
    return [_headline(str(dataset), group, test, losses) for dataset, group in pairs.groupby("dataset", sort=True)]


def _headline(dataset: str, pairs: pd.DataFrame, test: pd.DataFrame, losses: pd.DataFrame) -> Headline:
    models = main_models(pairs.rename(columns={"first": "model"}))
    compared = [(m, s) for m in models for s in ("uvb", "deen") if len(_of(pairs, m, s))]
    (one, two), rest = compared[0], compared[1:]
    swept = _of(pairs, one, two)
    sigma = float(swept["sigma"].max())
    top, here = swept[swept["sigma"] == sigma], pairs[pairs["sigma"] == sigma]
    others = [
        _difference(at)
        for first, second in rest
        if first != one and (second == "uvb" or (first, "uvb") not in rest) and len(at := _of(here, first, second))
    ]
    first, second = (float(test.loc[list(top[column]), "loss"].mean()) for column in ("first_id", "second_id"))
    row = test.loc[top["first_id"].iloc[0]]
    return Headline(
        dataset, sigma, first, second, _difference(top), int(top["images"].iloc[0]), _held_out(dataset), _levels(swept),
        _references(row), _condition(losses, row), tuple(others),
    )  # fmt: skip


def lone_headlines(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[LoneHeadline]:
    """Each data set's best loss at its largest noise level, in its main condition."""
    found = []
    rows = own_estimator(main_group(losses[losses["split"] == "test"], asked)) if len(losses) else losses
    for dataset, group in rows.groupby("dataset", sort=True):
        top = group[group["sigma"] == group["sigma"].max()]
        best = top.loc[top["loss"].idxmin()]
        found.append(
            LoneHeadline(
                dataset=str(dataset),
                sigma=float(best["sigma"]),
                model=str(best["model"]),
                loss=float(best["loss"]),
                stderr=float(best["stderr"]),
                held_out=_held_out(str(dataset)),
                paper_loss=_known(best["paper_loss"]),
                references=_references(best),
                condition=_condition(losses, best),
            )
        )
    return found


def _difference(pairs: pd.DataFrame) -> Difference:
    mean, low, high = interval(pairs)
    seeds, row = int(pairs["seed"].nunique()), pairs.iloc[0]
    spread = float(pairs["difference"].std()) if seeds > 1 else None
    return Difference(row["first"], row["second"], mean, low, high, decimals(float(pairs["stderr"].mean())), seeds, spread)


def _levels(pairs: pd.DataFrame) -> Levels | None:
    found = [interval(at) for _, at in pairs.groupby("sigma")]
    if len(found) < 2:
        return None
    below, above = sum(high < 0 for _, _, high in found), sum(low > 0 for _, low, _ in found)
    alone = bool(pairs.groupby("sigma")["seed"].nunique().max() == 1)
    return Levels(below, above, len(found) - below - above, alone)


def _condition(losses: pd.DataFrame, row: pd.Series) -> Condition | None:
    count = losses[losses["dataset"] == row["dataset"]].groupby(CONDITION).ngroups
    if count < 2:
        return None
    numbers = (int(row[name]) for name in ("batch_size", "train_images", "epochs"))
    return Condition(count, str(row["recipe"]), str(row["activation"]), *numbers)


def _references(row: pd.Series) -> References:
    return References(_known(row["nonparametric"]), _known(row["mean_image"]))


def _held_out(dataset: str) -> bool:
    return dataset.endswith("-validation")


def _known(value: Any) -> float | None:
    return float(value) if pd.notna(value) else None


def _of(pairs: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    return pairs[(pairs["first"] == first) & (pairs["second"] == second)]
