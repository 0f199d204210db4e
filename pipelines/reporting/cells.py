"""The report's tables as rows of cells. A cell has the text that a template prints, without HTML."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipelines.reporting.numbers import decimals, fixed, known, plain

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """One cell, printed as ``text ± error``. `best` means bold.

    `quiet` means a pale colour, for what is not a main result: the paper's numbers, references, intervals.
    """

    text: str
    error: str = ""
    best: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Table:
    """A table. `groups` are headings above the head, as (text, columns spanned). `text_columns` columns align left."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    text_columns: int = 1
    wrap: bool = False  # break long text into lines


def number(value: Any, error: Any = None, *, best: bool = False, quiet: bool = False) -> Cell:
    """A value rounded to two digits of its error, or to four digits if there is no error. A dash if the value is unknown."""
    value, error = known(value), known(error)
    if value is None:
        return Cell(DASH, quiet=True)
    if error is None or error <= 0:
        return Cell(plain(value), best=best, quiet=quiet)
    digits = decimals(error)
    return Cell(fixed(value, digits), f"{error:.{digits}f}", best, quiet)


def text(value: Any, *, best: bool = False, quiet: bool = False) -> Cell:
    """A text, or a dash if there is none."""
    return Cell(DASH if value is None or value is pd.NA or value == "" else str(value), best=best, quiet=quiet)


def printed(value: Any, digits: int = 3) -> Cell:
    """A number with exactly `digits` significant digits, like the losses in the paper: 2.60, 15.0, 692."""
    return Cell(DASH if known(value) is None else f"{float(value):#.{digits}g}".rstrip("."), quiet=True)


def first_row(rows: pd.DataFrame) -> dict[Hashable, Any]:
    """The first row as column -> value; {} if there is no row, so that its cells become dashes."""
    return rows.iloc[0].to_dict() if len(rows) else {}
