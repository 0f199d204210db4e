"""A table of the report as rows of cells: from numbers to what a template prints. No HTML here."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipelines.reporting.numbers import decimals, fixed, plain

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One cell. `quiet`: the figure is not ours, but the paper's or a reference."""

    text: str
    error: str = ""
    best: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """`groups` are (text, columns spanned) above the head; the first `text_columns` columns are set left."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    text_columns: int = 1
    wrap: bool = False  # long text may break into lines


def number(value: Any, error: Any = None, *, best: bool = False, quiet: bool = False) -> Cell:
    """A value with as many digits as its error allows (two of the error's), or four of its own; a dash where unknown."""
    if value is None or pd.isna(value):
        return Cell(DASH, quiet=True)
    if error is None or pd.isna(error) or not error > 0:
        return Cell(plain(float(value)), best=best, quiet=quiet)
    digits = decimals(float(error))
    return Cell(fixed(float(value), digits), f"{float(error):.{digits}f}", best, quiet)


def text(value: Any, *, best: bool = False, quiet: bool = False) -> Cell:
    """Text as it is; a dash where there is none."""
    return Cell(DASH if value is None or value is pd.NA or value == "" else str(value), best=best, quiet=quiet)


def printed(value: Any, digits: int = 3) -> Cell:
    """A figure with just so many digits, as the paper prints its losses: 2.60, 15.0, 692."""
    if value is None or pd.isna(value):
        return Cell(DASH, quiet=True)
    return Cell(f"{float(value):#.{digits}g}".rstrip("."), quiet=True)
