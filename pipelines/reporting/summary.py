"""The last lines of a study in the terminal: the report's headline, and a small table of its test losses."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.cells import first_row, number
from pipelines.reporting.figures.style import label
from pipelines.reporting.headlines import all_headlines
from pipelines.reporting.numbers import level
from pipelines.reporting.render import said
from pipelines.reporting.schemas import read_table
from pipelines.reporting.statistics import main_group, main_models, over_seeds, own_estimator

LEVELS = 4  # the small table has at most this many noise levels


def summary(study: Path) -> list[str]:
    """The lines for a study whose tables are written."""
    files = StudyFiles(study)
    losses, pairs = (read_table(study / "tables" / f"{name}.parquet", name) for name in ("losses", "pairs"))
    found = all_headlines(losses, pairs, files.asked)
    test = over_seeds(own_estimator(main_group(losses[losses["split"] == "test"], files.asked)))
    tables = (line for dataset, group in test.groupby("dataset") for line in _table(str(dataset), group))
    return [*(said(headline)[0] for headline in found), *tables]


def _table(dataset: str, losses: pd.DataFrame) -> Iterator[str]:
    """A row for each model, and a column for each of a few noise levels, among them the smallest and the largest."""
    every = sorted(set(losses["sigma"]))
    last = len(every) - 1
    places = {round(last * j / (LEVELS - 1)) for j in range(LEVELS)}  # evenly spread
    sigmas = [every[i] for i in sorted(places)]
    rows = [[f"test loss on {dataset}", *(f"σ = {level(sigma)}" for sigma in sigmas)]]
    for model in main_models(losses):
        own = [first_row(losses[(losses["model"] == model) & (losses["sigma"] == sigma)]) for sigma in sigmas]
        cells = [number(row.get("loss"), row.get("stderr")) for row in own]
        rows.append([label(model), *(f"{cell.text} ± {cell.error}" if cell.error else cell.text for cell in cells)])
    known = [number(losses.loc[losses["sigma"] == sigma, "mean_image"].max()).text for sigma in sigmas]
    rows.append(["the mean image", *known])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *values in rows:
        yield "  ".join([name.ljust(widths[0]), *(value.rjust(width) for value, width in zip(values, widths[1:], strict=True))])
