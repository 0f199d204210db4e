"""Every number that a user can give has a range. A command refuses a number outside it with one line and exit code 2."""

import dataclasses
import re
import sys
from typing import Any

import pytest

from pipelines.bounds import RANGES, Range
from pipelines.cli import command
from pipelines.denoise import Denoise
from pipelines.keep import Keep
from pipelines.report import Args
from pipelines.restore import Restore
from pipelines.sample import Sample
from pipelines.study.config import StudyConfig
from pipelines.sweep import SweepConfig
from uvb.errors import UserError

# The config of each command, and the positional arguments that the command needs.
POSITIONAL: dict[type[Any], tuple[str, ...]] = {
    StudyConfig: (), SweepConfig: (), Sample: ("model",), Denoise: ("model", "a.png"), Args: ("study",), Keep: ("study",),
    Restore: ("model", "a.png"),
}  # fmt: skip


def numbers_of(config: type[Any]) -> list[str]:
    """The fields of a config that hold numbers or tuples of numbers."""
    return [field.name for field in dataclasses.fields(config) if re.search(r"\b(int|float)\b", str(field.type))]


CASES = [(config, name) for config in POSITIONAL for name in numbers_of(config)]


def outside(name: str) -> list[str]:
    """Numbers just outside and far outside an option's range, as a user would type them."""
    bounds = RANGES[name]
    whole = isinstance(bounds.low, int) and isinstance(bounds.high, int)
    below, above = (bounds.low - 1, bounds.high + 1) if whole else (bounds.low / 2, bounds.high * 2)
    if bounds.zero and below == 0:
        below = -1
    return [str(below), str(above), "9" * 40, "-" + "9" * 40]


def test_numbers_of_finds_every_number_of_every_command() -> None:
    assert [len(numbers_of(config)) for config in POSITIONAL] == [19, 19, 5, 2, 0, 0, 5]


@pytest.mark.parametrize(("config", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_command_refuses_a_number_outside_its_range_in_one_line(
    config: type[Any], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    option, words = f"--{name.replace('_', '-')}", ["command", *POSITIONAL[config]]
    for number in outside(name):
        monkeypatch.setattr(sys, "argv", [*words, option, number])
        with pytest.raises(SystemExit) as end:
            command(config, lambda _: pytest.fail("it began"))
        line = capsys.readouterr().err
        assert end.value.code == 2, (number, line)
        assert line.startswith(f"error: {option} "), line
        assert line.endswith(f": it must be {RANGES[name]}\n"), line
        assert line.count("\n") == 1
        assert len(line) < 200


@pytest.mark.parametrize(("config", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_bounded_allows_the_bounds_themselves(config: type[Any], name: str) -> None:
    kept = {field.name: field.name for field in dataclasses.fields(config) if field.default is dataclasses.MISSING}
    bounds = RANGES[name]
    for number in (bounds.low, bounds.high, *([0] if bounds.zero else [])):
        several = isinstance(getattr(config, name), tuple)
        config(**kept, **{name: (number,) if several else number})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_ranges_leave_out_nan_and_infinity(number: float) -> None:
    assert not [name for name, bounds in RANGES.items() if number in bounds]


def test_range_tells_that_zero_is_allowed() -> None:
    assert str(Range(1, 4096, zero=True)) == "0, or from 1 to 4,096"
    assert str(RANGES["delta"]) == "0, or from 1e-06 to 1e+06"
    assert str(RANGES["width"]) == "from 0.01 to 50, as a multiple of the default widths"


def test_cluster_options_refuse_fractions_of_gpus_above_one() -> None:
    with pytest.raises(UserError, match=r"--gpus-per-worker 1\.5: above 1 it must be a whole number"):
        StudyConfig(gpus_per_worker=1.5)
