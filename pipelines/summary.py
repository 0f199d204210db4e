"""What the report says in numbers: which models are compared with which, means over seeds, and the headline."""

import math
from dataclasses import dataclass

import pandas as pd

from pipelines.figures.style import label

CONDITION = ["recipe", "activation", "batch_size", "train_images", "epochs"]
_TRAINED_FOR = ["energy", "direct", "decoder"]  # a model's own estimator is the first of these that it has


def main_group(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each data set's main condition: the recipe, activation, batch and training set most models share."""
    kept = []
    for _, group in table.groupby("dataset", sort=True):
        sizes = group.groupby(CONDITION, sort=True)["spec_id"].nunique()
        best = dict(zip(CONDITION, sizes.idxmax(), strict=True))
        kept.append(group[(group[CONDITION] == pd.Series(best)).all(axis=1)])
    return pd.concat(kept) if kept else table


def own_estimator(losses: pd.DataFrame) -> pd.DataFrame:
    """Of each model the rows of the estimator it is trained for."""
    rank = losses["estimator"].map({name: i for i, name in enumerate(_TRAINED_FOR)}).fillna(len(_TRAINED_FOR))
    return losses[rank == rank.groupby(losses["spec_id"]).transform("min")]


def over_seeds(losses: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds. `stderr` is the mean one (the images are the same for each seed); `spread` is the seeds' s.d."""
    by = ["dataset", *CONDITION, "widths", "model", "estimator", "split", "sigma"]
    grouped = losses.groupby(by, sort=True, dropna=False)
    return grouped.agg(
        loss=("loss", "mean"),
        stderr=("stderr", "mean"),
        spread=("loss", "std"),
        seeds=("seed", "nunique"),
        parameters=("parameters", "first"),
        floor=("floor", "first"),
        nonparametric=("nonparametric", "first"),
        paper_loss=("paper_loss", "first"),
    ).reset_index()


@dataclass(frozen=True)
class Headline:
    """UVB against DEEN at the largest sigma of a data set, on the test set, as sentences."""

    dataset: str
    sentence: str
    detail: str
    sigma: float
    uvb: float
    deen: float
    difference: float
    low: float
    high: float


def headlines(losses: pd.DataFrame, pairs: pd.DataFrame) -> list[Headline]:
    """One headline a data set that has a UVB-DEEN pair; with several seeds the differences are averaged."""
    found = []
    pairs = pairs[(pairs["first"] == "uvb") & (pairs["second"] == "deen") & (pairs["split"] == "test")]
    ids = set(main_group(losses)["spec_id"])
    for dataset, group in pairs[pairs["first_id"].isin(ids)].groupby("dataset", sort=True):
        sigma = group["sigma"].max()
        top = group[group["sigma"] == sigma]
        test = own_estimator(losses[(losses["split"] == "test")]).set_index("spec_id")
        uvb, deen = (test.loc[list(top[column]), "loss"].mean() for column in ("first_id", "second_id"))
        # Seeds share the test images: the mean difference's error is bounded by the mean of the errors.
        difference, low, high = (float(top[column].mean()) for column in ("difference", "low", "high"))
        digits = decimals(float(top["stderr"].mean()))
        short = max(2, digits - 1)
        images, seeds = int(top["images"].iloc[0]), top["seed"].nunique()
        verdict = (
            f"UVB is lower than DEEN by {-difference:.{short}f}"
            if high < 0
            else f"DEEN is lower than UVB by {difference:.{short}f}"
            if low > 0
            else "UVB and DEEN cannot be told apart"
        )
        sentence = f"At σ = {level(sigma)} on {dataset}, {verdict}: a test loss of {uvb:.{short}f} against {deen:.{short}f}."
        interval = f"[{signed(low, digits)}, {signed(high, digits)}]"
        detail = (
            f"Paired difference UVB − DEEN {signed(difference, digits)}, 95 % CI {interval}, over the same "
            f"{images:,} test images and noise" + (f", mean of {seeds} seeds." if seeds > 1 else ".")
        )
        signs = _signs(group)
        found.append(Headline(str(dataset), sentence, f"{detail} {signs}".strip(), sigma, uvb, deen, difference, low, high))
    return found


def _signs(group: pd.DataFrame) -> str:
    """In how many of the noise levels the interval excludes zero, and on which side."""
    means = group.groupby("sigma")[["low", "high"]].mean()
    if len(means) < 2:
        return ""
    below, above = int((means["high"] < 0).sum()), int((means["low"] > 0).sum())
    undecided = len(means) - below - above
    return f"Over all {len(means)} noise levels UVB is lower at {below}, DEEN at {above}, undecided at {undecided}."


def decimals(error: float) -> int:
    """How many decimals a value with this error has: two digits of the error."""
    return max(0, min(5, 1 - math.floor(math.log10(error)))) if math.isfinite(error) and error > 0 else 3


def signed(value: float, digits: int) -> str:
    """A signed number with a true minus sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def level(sigma: float) -> str:
    """A noise level as the paper writes it: 0.3, 1.0."""
    return f"{sigma:.1f}" if abs(sigma * 10 - round(sigma * 10)) < 1e-9 else f"{sigma:g}"


def main_models(losses: pd.DataFrame) -> list[str]:
    """Models in the order they are shown: UVB, DEEN, then by name."""
    rank = {"uvb": 0, "deen": 1}
    return sorted(set(losses["model"]), key=lambda m: (rank.get(m, 2), label(m)))
