"""What the report says in numbers: which models are compared with which, means over seeds, and the headline."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from pipelines.reporting.figures.style import label
from uvb.measure.losses import own_estimator as own_name

CONDITION = ["recipe", "activation", "batch_size", "train_images", "epochs"]


def main_group(table: pd.DataFrame, asked: Collection[str] = ()) -> pd.DataFrame:
    """The rows of each data set's main condition: the recipe, activation, batch and training set most models share.

    Of the models `asked` for last, where there are any (`StudyFiles.asked`), since a folder may hold an earlier command's as
    well; of as many under two conditions, those with more images, then of the recipe that nothing was changed in, then with
    more epochs. Of a model trained at several capacities, the middle one of those asked for.
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
    """`Recipe.changed` says in a recipe's name what was changed, after a comma."""
    return int(condition["train_images"]), -str(condition["recipe"]).count(","), int(condition["epochs"])


def _among(losses: pd.DataFrame, asked: Collection[str], dataset: str, spec_id: str) -> str:
    """Which of a data set's conditions a headline is of, where there are several."""
    own = losses[losses["dataset"] == dataset]
    count = own.groupby(CONDITION).ngroups
    if count < 2:
        return ""
    row = own[own["spec_id"] == spec_id].iloc[0]
    what = f"{row['recipe']}, {row['activation']}, batch {row['batch_size']}, {row['train_images']:,} images"
    return f"One of {count} conditions in this study: {what}, {counted(row['epochs'], 'epoch')}; the tables have all."


def _split(dataset: str) -> tuple[str, str]:
    """What the loss and the images of a data set's second split are called: a search's are held out of the training images."""
    return ("held-out loss", "held-out images") if dataset.endswith("-validation") else ("test loss", "test images")


def _middle_sizes(rows: pd.DataFrame) -> dict[str, int]:
    """model -> of the parameter counts that it was trained with, the middle one."""
    sizes = {str(model): sorted(set(own)) for model, own in rows.groupby("model")["parameters"]}
    return {model: int(own[(len(own) - 1) // 2]) for model, own in sizes.items()}


def own_estimator(losses: pd.DataFrame) -> pd.DataFrame:
    """Of each model the rows of the estimator it is judged by."""
    offered = losses.groupby("spec_id")["estimator"].agg(set).to_dict()
    own = [own_name(row.model, offered[row.spec_id]) == row.estimator for row in losses.itertuples()]
    return losses[pd.Series(own, index=losses.index, dtype=bool)]


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
    """Two models at the largest sigma of a data set, on the test set, as sentences: UVB and DEEN where both are there."""

    dataset: str
    sentence: str
    detail: str
    sigma: float
    first: float  # the test losses
    second: float
    difference: float
    low: float
    high: float


def headlines(losses: pd.DataFrame, pairs: pd.DataFrame, asked: Collection[str] = ()) -> list[Headline]:
    """One headline a data set that has a pair; with several seeds the differences are averaged (`interval`).

    It is of UVB and DEEN, or where they make no pair of the next model that does; the other models follow in a sentence.
    Of one training each the interval is over images; what another training would give, seeds tell (`--seeds 0 1 2`).
    """
    found = []
    ids = set(main_group(losses, asked)["spec_id"])
    pairs = pairs[(pairs["split"] == "test") & pairs["first_id"].isin(ids)]
    test = own_estimator(losses[(losses["split"] == "test")]).set_index("spec_id")
    for dataset, group in pairs.groupby("dataset", sort=True):
        models = main_models(group.rename(columns={"first": "model"}))
        told = [(m, s) for m in models for s in ("uvb", "deen") if len(_of(group, m, s))]
        (one, two), others = told[0], told[1:]
        swept = _of(group, one, two)
        sigma = swept["sigma"].max()
        top = swept[swept["sigma"] == sigma]
        first, second = (test.loc[list(top[column]), "loss"].mean() for column in ("first_id", "second_id"))
        difference, low, high = interval(top)
        digits = decimals(float(top["stderr"].mean()))
        short = max(2, digits - 1)
        images, seeds = int(top["images"].iloc[0]), top["seed"].nunique()
        a, b = label(one), label(two)
        measure, kind = _split(str(dataset))
        verdict = (
            f"{a} is lower than {b} by {-difference:.{short}f}"
            if high < 0
            else f"{b} is lower than {a} by {difference:.{short}f}"
            if low > 0
            else f"{a} and {b} cannot be told apart"
        )
        named, other = (second, first) if low > 0 else (first, second)  # in the verdict's order
        sentence = f"At σ = {level(sigma)} on {dataset}, {verdict}: a {measure} of {named:.{short}f} against {other:.{short}f}."
        detail = f"Paired difference {a} − {b} {_between(top)}, over the same {images:,} {kind} and noise" + (
            f" and over trainings, mean of {seeds} seeds (s.d. over seeds {top['difference'].std():.{digits}f})."
            if seeds > 1
            else ", one training each; another may differ by more (--seeds 0 1 2 tells)."
        )
        said = []
        for m, against in others:
            at = _of(group[group["sigma"] == sigma], m, against)
            if m != one and len(at) and (against == "uvb" or (m, "uvb") not in others):
                count = at["seed"].nunique()
                of = "" if count == seeds else f" (of {count} seed{'s' * (count > 1)})"
                said.append(f"{label(m)} − {label(against)} {_between(at)}{of}")
        more = f"Likewise {'; '.join(said)}." if said else ""
        among = _among(losses, asked, str(dataset), str(top["first_id"].iloc[0]))
        exact = test.loc[list(top["first_id"]), "nonparametric"].dropna()
        optimum = f"The training set's exact posterior mean has {exact.iloc[0]:.{short}f}." if len(exact) else ""
        words = " ".join(part for part in (detail, _signs(swept, a, b), optimum, among, more) if part)
        found.append(Headline(str(dataset), sentence, words, sigma, first, second, difference, low, high))
    return found


def _of(pairs: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    return pairs[(pairs["first"] == first) & (pairs["second"] == second)]


def _between(pairs: pd.DataFrame) -> str:
    """−0.108, 95 % CI [−0.127, −0.088]."""
    difference, low, high = interval(pairs)
    digits = decimals(float(pairs["stderr"].mean()))
    return f"{signed(difference, digits)}, 95 % CI {brackets(low, high, digits)}"


def interval(pairs: pd.DataFrame) -> tuple[float, float, float]:
    """The mean difference of one pair a seed, and its 95 % interval over images and, of two seeds and more, over trainings.

    Seeds share the test images, so the mean's error over images is bounded by the mean of theirs. The trainings' part is
    Student's t of the seeds' spread, which for two seeds is wide; the parts are joined as independent ones.
    """
    difference, low, high = (float(pairs[column].mean()) for column in ("difference", "low", "high"))
    seeds = len(pairs)
    if seeds == 1:
        return difference, low, high
    over_trainings = float(stdtrit(seeds - 1, 0.975) * pairs["difference"].std() / math.sqrt(seeds))
    half = math.hypot(over_trainings, (high - low) / 2)
    return difference, difference - half, difference + half


def lone_headlines(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[tuple[str, str]]:
    """Where no two models are compared: the main condition's best loss at the largest sigma of each data set, a sentence and
    a detail."""
    found = []
    rows = own_estimator(main_group(losses[losses["split"] == "test"], asked)) if len(losses) else losses
    for dataset, group in rows.groupby("dataset", sort=True):
        top = group[group["sigma"] == group["sigma"].max()]
        best = top.loc[top["loss"].idxmin()]
        error = float(best["stderr"])
        digits = decimals(error)
        measure, kind = _split(str(dataset))
        sentence = (
            f"At σ = {level(best['sigma'])} on {dataset}, {label(best['model'])} has a {measure} of {best['loss']:.{digits}f}."
        )
        detail = [f"± {error:.{digits}f}, one standard error over {kind}"]
        detail += [f"the paper's: {best['paper_loss']:g}"] if pd.notna(best["paper_loss"]) else []
        detail += (
            [f"the training set's exact posterior mean: {best['nonparametric']:.{digits}f}"]
            if pd.notna(best["nonparametric"])
            else []
        )
        among = _among(losses, asked, str(dataset), str(best["spec_id"]))
        found.append((sentence, " ".join(part for part in ("; ".join(detail) + ".", among) if part)))
    return found


def _signs(pairs: pd.DataFrame, first: str, second: str) -> str:
    """In how many of the noise levels the interval excludes zero, and on which side."""
    found = [interval(at) for _, at in pairs.groupby("sigma")]
    if len(found) < 2:
        return ""
    below, above = sum(high < 0 for _, _, high in found), sum(low > 0 for _, low, _ in found)
    undecided = len(found) - below - above
    alone = ", by intervals over images of one training each" if pairs.groupby("sigma")["seed"].nunique().max() == 1 else ""
    of = f"Over all {len(found)} noise levels {first} is lower at {below}, {second} at {above}, undecided at {undecided}"
    return f"{of}{alone}."


def decimals(error: float) -> int:
    """How many decimals a value with this error has: two digits of the error."""
    return max(0, min(5, 1 - math.floor(math.log10(error)))) if math.isfinite(error) and error > 0 else 3


def signed(value: float, digits: int) -> str:
    """A signed number with a true minus sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def brackets(low: float, high: float, digits: int) -> str:
    """An interval: [−0.127, −0.088]."""
    return f"[{signed(low, digits)}, {signed(high, digits)}]"


def level(sigma: float) -> str:
    """A noise level as the paper writes it: 0.3, 1.0."""
    return f"{sigma:.1f}" if abs(sigma * 10 - round(sigma * 10)) < 1e-9 else f"{sigma:g}"


def counted(count: int, what: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def main_models(losses: pd.DataFrame) -> list[str]:
    """Models in the order they are shown: UVB, DEEN, then by name."""
    rank = {"uvb": 0, "deen": 1}
    return sorted(set(losses["model"]), key=lambda m: (rank.get(m, 2), label(m)))
