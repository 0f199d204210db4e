"""Compare the tables of two studies to the last bit."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from pipelines.reporting.schemas import SCHEMAS
from uvb.errors import UserError, first_line

# Two runs with the same results may differ in MLflow's run ids and in times.
LEFT_OUT = ("run_id", "seconds", "time", "images_per_s")
NAMED = 3  # name at most this many differing rows of a column


def differences(a: Path, b: Path) -> list[str]:
    """A line for each column in which the tables of two studies differ; [] if all numbers are equal to the last bit.

    Columns that only one study has are left out, since newer versions add columns. `added` lists these columns.

    Raises:
        UserError: a study has no tables, or a table cannot be read.
    """
    names = [{p.stem for p in (root / "tables").glob("*.parquet")} for root in (a, b)]
    for root, found in zip((a, b), names, strict=True):
        if not found:
            raise UserError(f"{root} has no tables; give a study that has ended, or a copy of it in results/studies")
    lines = [f"{name}: only one of the studies has this table" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        lines += _of_table(name, *(_read(root / "tables" / f"{name}.parquet") for root in (a, b)))
    return lines


def added(a: Path, b: Path) -> list[str]:
    """Columns that only one of two studies has, such as ``losses.mean_image``."""
    found = []
    for path in sorted((a / "tables").glob("*.parquet")):
        if (b / "tables" / path.name).exists():
            columns = set(_read(path).columns) ^ set(_read(b / "tables" / path.name).columns)
            found += [f"{path.stem}.{column}" for column in sorted(columns)]
    return found


def _read(path: Path) -> pd.DataFrame:
    try:
        return pq.read_table(path).to_pandas()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a Parquet file ({first_line(error)})") from error


def _of_table(name: str, a: pd.DataFrame, b: pd.DataFrame) -> Iterator[str]:
    """The differences in one table. The table's key tells which rows belong together."""
    key = list(SCHEMAS[name].key) if name in SCHEMAS else ["spec_id"]
    if set(key) - (set(a.columns) & set(b.columns)):
        yield f"{name}: its rows cannot be matched, since one of the studies lacks a column of the key ({', '.join(key)})"
        return
    a, b = a.set_index(key).sort_index(), b.set_index(key).sort_index()
    alone = a.index.symmetric_difference(b.index)
    if len(alone):
        yield f"{name}: rows in one study only: {len(alone)}, such as {alone[0]}"
    both = a.index.intersection(b.index)
    for column in (c for c in a.columns if c in b.columns and c not in LEFT_OUT):
        left, right = a.loc[both, column], b.loc[both, column]
        equal = (left == right) | (left.isna() & right.isna())
        apart = both[~equal.to_numpy(bool)]
        if len(apart):
            some = "; ".join(f"{i}: {left.loc[i]!r} and {right.loc[i]!r}" for i in apart[:NAMED])
            yield f"{name}.{column}: {len(apart)} of {len(both)} rows differ: {some}"
