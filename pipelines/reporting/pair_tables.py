"""Make the report's tables of paired differences: UVB minus DEEN, then every other model minus each of these two."""

import itertools
from collections.abc import Collection, Sequence

import pandas as pd

from pipelines.reporting.cells import Table, text
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import brackets, decimals, level, signed
from pipelines.reporting.statistics import interval, main_group, main_models


def pair_tables(pairs: pd.DataFrame, losses: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """UVB - DEEN by sigma and split, then every other model minus UVB and minus DEEN on the test set, with 95 % intervals."""
    found: list[Table] = []
    main = main_group(losses, asked)
    # Choose by first_id only: `main` has one size of each model, but the second model of a pair may have another size.
    pairs = pairs[pairs["first_id"].isin(set(main["spec_id"]))]
    means = (
        "Losses are compared image by image, with the same noise. Below zero {} is better. Bold: the interval excludes zero."
    )
    for dataset, of_main in main.groupby("dataset"):
        tables: list[Table] = []
        group = pairs[pairs["dataset"] == dataset]
        two = group[group["first"] == "uvb"]
        others = group[(group["first"] != "uvb") & (group["split"] == "test")]
        if len(two):
            splits = [s for s in ("test", "train") if (two["split"] == s).any()]
            columns = [(s, "UVB − DEEN", two[two["split"] == s]) for s in splits]
            caption = f"Paired difference of the losses on {dataset}."
            tables.append(_pair_table(caption, columns, [means.format("UVB"), *_seeds(two)]))
        if len(others):
            columns = [
                (label(m), f"minus {label(second)}", own)
                for m in main_models(others, "first")
                for second in ("uvb", "deen")
                if len(own := others[(others["first"] == m) & (others["second"] == second)])
            ]
            caption = f"Paired difference of the test losses on {dataset}: other models."
            tables.append(_pair_table(caption, columns, [means.format("the other model"), *_seeds(others)]))
        models = main_models(of_main)
        alone = [m for m in models if m not in {*group["first"], *group["second"]}]
        if len(models) > 1 and alone:
            if not tables:
                tables.append(Table(f"Paired difference of the losses on {dataset}: none.", [], []))
            names = ", ".join(map(label, alone))
            tables[-1].notes.append(
                f"Not compared: {names}. "
                "No UVB or DEEN of nearly the same size (within 25 %) was trained and measured in the same way."
            )
        found += tables
    return found


def _seeds(pairs: pd.DataFrame) -> list[str]:
    """A note on what the intervals cover, if there are several seeds."""
    seeds = pairs.groupby(["first", "second", "split", "sigma"])["seed"].nunique()
    if seeds.max() < 2:
        return []
    alone = " The interval of a single training covers images only." if seeds.min() < 2 else ""
    return [f"Means over seeds. The intervals cover images and trainings.{alone}"]


def _pair_table(caption: str, columns: Sequence[tuple[str, str, pd.DataFrame]], notes: list[str]) -> Table:
    """A table with a row for each sigma. `columns` are (group, head, pairs), ordered by group."""
    rows = []
    for sigma in sorted({sigma for _, _, pairs in columns for sigma in pairs["sigma"]}):
        cells = [text(level(sigma))]
        for _, _, pairs in columns:
            at = pairs[pairs["sigma"] == sigma]
            if at.empty:
                cells += [text(None), text(None)]
                continue
            mean, low, high = interval(at)
            digits = decimals(float(at["stderr"].mean()))
            between = text(brackets(low, high, digits), quiet=True)
            cells += [text(signed(mean, digits), best=high < 0 or low > 0), between]
        rows.append(cells)
    # Each pair has two columns: the difference and its interval.
    groups = [("", 1)] + [(name, 2 * len(list(own))) for name, own in itertools.groupby(columns, key=lambda column: column[0])]
    return Table(caption, ["σ", *(h for _, head, _ in columns for h in (head, "95 % CI"))], rows, groups, notes)
