"""Numbers as text: how many digits an error allows, signs, intervals, noise levels, shares."""

import math
from typing import Any

import pandas as pd


def known(value: Any) -> float | None:
    """A number from a table, or None if the table has none."""
    return float(value) if pd.notna(value) else None


def decimals(error: float) -> int:
    """How many decimals show two digits of an error, at most five. Three if there is no error."""
    return max(0, min(5, 1 - math.floor(math.log10(error)))) if math.isfinite(error) and error > 0 else 3


def fixed(value: float, digits: int) -> str:
    """A number with this many decimals and a true minus sign: −0.108."""
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """Like `fixed`, with a plus sign if the number is positive."""
    return f"{value:+.{digits}f}".replace("-", "−")


def brackets(low: float, high: float, digits: int) -> str:
    """An interval: [−0.127, −0.088]."""
    return f"[{signed(low, digits)}, {signed(high, digits)}]"


def level(sigma: float) -> str:
    """A noise level as the paper writes it: 0.3, 1.0."""
    return f"{sigma:.1f}" if abs(sigma * 10 - round(sigma * 10)) < 1e-9 else f"{sigma:g}"


def percent(share: Any) -> str | None:
    """A share in percent, or None if it is unknown."""
    return f"{100 * share:.1f} %" if pd.notna(share) else None


def plain(value: float) -> str:
    """A number without an error, to four digits."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.2g}").replace("-", "−")
