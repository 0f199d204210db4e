"""Which models are compared with which, means over seeds, intervals, and losses that still fall. Numbers only, no words."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from uvb.measure.losses import own_estimator as own_name

# How a model was trained, besides the noise level and the seed. Models are compared within one condition.
CONDITION = ["recipe", "activation", "batch_size", "train_images", "epochs"]
FALLING = 0.005  # if a loss falls by a larger share in the last tenth of its training, the training was too short


def main_group(table: pd.DataFrame, asked: Collection[str] = ()) -> pd.DataFrame:
    """The rows of each data set's main condition: the recipe, activation, batch and training set that most models share.

    A folder may also have models of earlier commands. If the data set has models of the last command (`asked`, see
    `StudyFiles.asked`), only these are counted. Ties go to the condition with more images, then to the unchanged recipe,
    then to more epochs. A model may have several sizes (numbers of parameters) in this condition. Then only its middle size is
    kept: the middle one of the sizes in the last command, or of all its sizes if the last command does not have the model.
    """
    kept = []
    for _, group in table.groupby("dataset", sort=True):
        last = group[group["spec_id"].isin(asked)]
        sizes = (last if len(last) else group).groupby(CONDITION, sort=True)["spec_id"].nunique()
        most = max(sizes[sizes == sizes.max()].reset_index().to_dict("records"), key=_rank)
        best = {name: most[name] for name in CONDITION}
        main = group[(group[CONDITION] == pd.Series(best)).all(axis=1)]
        capacities = _middle_sizes(main) | _middle_sizes(main[main["spec_id"].isin(asked)])
        kept.append(main[main["parameters"] == main["model"].map(capacities)])
    return pd.concat(kept) if kept else table


def _rank(condition: Mapping[str, Any]) -> tuple[int, int, int]:
    """Sort key: more images first, then fewer changes (a recipe's name lists them after commas), then more epochs."""
    return int(condition["train_images"]), -str(condition["recipe"]).count(","), int(condition["epochs"])


def _middle_sizes(rows: pd.DataFrame) -> dict[str, int]:
    """Model -> the middle one of its parameter counts."""
    sizes = {str(model): sorted(set(own)) for model, own in rows.groupby("model")["parameters"]}
    return {model: int(own[(len(own) - 1) // 2]) for model, own in sizes.items()}


def own_estimator(losses: pd.DataFrame) -> pd.DataFrame:
    """The rows of the estimator by which each model is judged."""
    offered = losses.groupby("spec_id")["estimator"].agg(set).to_dict()
    own = [own_name(row.model, offered[row.spec_id]) == row.estimator for row in losses.itertuples()]
    return losses[pd.Series(own, index=losses.index, dtype=bool)]


def over_seeds(losses: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds. `stderr` is the mean of the seeds' errors, since seeds share images. `spread` is the seeds' s.d."""
    by = ["dataset", *CONDITION, "widths", "model", "estimator", "split", "sigma"]
    first = ("parameters", "floor", "nonparametric", "mean_image", "noisy_image", "paper_loss")
    means = {"loss": ("loss", "mean"), "stderr": ("stderr", "mean"), "spread": ("loss", "std"), "seeds": ("seed", "nunique")}
    groups = losses.groupby(by, sort=True, dropna=False)
    return groups.agg(**means, **{name: (name, "first") for name in first}).reset_index()


def interval(pairs: pd.DataFrame) -> tuple[float, float, float]:
    """The mean difference over one pair per seed, and its 95 % interval.

    The interval covers the choice of images. With two or more seeds, it also covers the differences between trainings. Its
    half width is the root of the sum of the squares of two parts. The part for images is the mean half width of the seeds'
    intervals. Seeds share their test images, so more seeds do not make this part smaller. The part for trainings is the half
    width of Student's t interval over seeds, which is wide for two seeds.
    """
    difference, low, high = (float(pairs[column].mean()) for column in ("difference", "low", "high"))
    seeds = len(pairs)
    if seeds == 1:
        return difference, low, high
    over_trainings = float(stdtrit(seeds - 1, 0.975) * pairs["difference"].std() / math.sqrt(seeds))
    half = math.hypot(over_trainings, (high - low) / 2)
    return difference, difference - half, difference + half


def main_models(table: pd.DataFrame, column: str = "model") -> list[str]:
    """Models in the order they are shown: UVB, DEEN, then by name."""
    return sorted(set(table[column]), key=lambda model: ({"uvb": 0, "deen": 1}.get(model, 2), model))


def still_falling(curve: Sequence[Mapping[str, Any]]) -> float | None:
    """The share by which a training's test loss fell in its last tenth (at least one epoch), or None.

    None if the share is at most `FALLING`, or if fewer than two epochs were measured.
    """
    losses = [row["test_loss"] for row in curve if row.get("test_loss") is not None]
    if len(losses) < 2 or not all(map(math.isfinite, losses)) or losses[-1] == 0:
        return None
    fell = (losses[-1 - max(1, len(losses) // 10)] - losses[-1]) / abs(losses[-1])
    return fell if fell > FALLING else None
