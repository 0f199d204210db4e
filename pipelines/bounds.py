"""The allowed range of every numeric option, in one table for all commands. Import nothing slow here."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from uvb.errors import UserError

MILLION = 1_000_000


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`.

    Attributes:
        zero: whether 0 is allowed as well, with a special meaning.
        why: text that follows the range in the error line: the reason for a bound, or the unit.
    """

    low: float
    high: float
    zero: bool = False
    why: str = ""

    def __contains__(self, number: float) -> bool:
        return bool(self.low <= number <= self.high) or (self.zero and number == 0)

    def __str__(self) -> str:
        zero, why = "0, or " if self.zero else "", f", {self.why}" if self.why else ""
        return f"{zero}from {_text(self.low)} to {_text(self.high)}{why}"


SEED = Range(-(2**63), 2**63 - 1, why="so that tables can hold it")
IMAGES = Range(2, 1000 * MILLION, zero=True, why="since an error bar needs 2")
COUNT = Range(1, MILLION)

RANGES = {
    # trainings
    "epochs": COUNT,
    "batch_size": Range(1, 1000 * MILLION),
    "learning_rate": Range(1e-12, 1000.0),
    "sigmas": Range(1e-4, 1e4, why="where pixels are in [0, 1]"),
    "seeds": SEED,
    "width": Range(0.01, 50.0, why="as a multiple of the default widths"),
    "train_images": IMAGES,
    "resize": Range(1, 4096, zero=True),
    # measurements
    "eval_images": IMAGES,
    "eval_test_images": IMAGES,
    "eval_draws": Range(1, MILLION),
    "scale": Range(0.001, 1),
    # machines
    "num_workers": Range(0, 10_000),
    "cpus_per_worker": Range(0.01, 10_000, zero=True),
    "gpus_per_worker": Range(0.01, 1000),
    "concurrent_trials": Range(0, 10_000),
    "expect_cpus": Range(0, MILLION),
    "expect_gpus": Range(0, MILLION),
    "checkpoint_seconds": Range(0.001, 10 * MILLION),
    # samples
    "chains": COUNT,
    "delta": Range(1e-6, 1e6, zero=True),
    "steps_between_jumps": COUNT,
    "jumps": COUNT,
    "draws": COUNT,
    "warm_up": COUNT,
    "tau": Range(1e-6, 1e6, zero=True),
    "seed": SEED,
}


class Bounded:
    """Base of option dataclasses. Making an object checks all numbers. A subclass with more checks first calls ``super()``."""

    def __post_init__(self) -> None:
        for name, number in numbers(self):
            if number not in RANGES[name]:
                raise UserError(f"--{name.replace('_', '-')} {_text(number)}: it must be {RANGES[name]}")


def numbers(options: Any) -> Iterator[tuple[str, float]]:
    """Yield (field name, number) for each number in a dataclass's fields, including the numbers in tuples."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, int | float) and not isinstance(each, bool):
                yield field.name, each


def _text(number: float) -> str:
    """A number as text: ``1,000,000``, ``0.5``, ``1e+308``. Only the first digits of a very long whole number are kept."""
    if isinstance(number, int):
        return f"{number:,}" if abs(number) < 1e30 else f"{str(number)[:20]}..."
    return f"{number:,g}"
