"""A table of the report as rows of cells. A cell turns a number into the text that a template prints. No HTML here."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipelines.reporting.numbers import decimals, fixed, known, plain

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One cell. A `quiet` figure is the paper's or a reference, not ours."""

    text: str
    error: str = ""
    best: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """`groups` are (text, columns spanned) above the head. The first `text_columns` columns are aligned left."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    text_columns: int = 1
    wrap: bool = False  # long text is broken into lines


def number(value: Any, error: Any = None, *, best: bool = False, quiet: bool = False) -> Cell:
    """A value rounded to the second digit of its error, or to four digits without an error; a dash if it is unknown."""
    value, error = known(value), known(error)
    if value is None:
        return Cell(DASH, quiet=True)
    if error is None or error <= 0:
        return Cell(plain(value), best=best, quiet=quiet)
    digits = decimals(error)
    return Cell(fixed(value, digits), f"{error:.{digits}f}", best, quiet)


def text(value: Any, *, best: bool = False, quiet: bool = False) -> Cell:
    """Text as it is; a dash where there is none."""
    return Cell(DASH if value is None or value is pd.NA or value == "" else str(value), best=best, quiet=quiet)


def printed(value: Any, digits: int = 3) -> Cell:
    """A figure with exactly `digits` significant digits, as the paper prints its losses: 2.60, 15.0, 692."""
    return Cell(DASH if known(value) is None else f"{float(value):#.{digits}g}".rstrip("."), quiet=True)


def first_row(rows: pd.DataFrame) -> dict[Hashable, Any]:
    """The first row by column; empty where there is none, so that its cells are dashes."""
    return rows.iloc[0].to_dict() if len(rows) else {}
