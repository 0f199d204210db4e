"""An error of another library becomes one line, even if it has no message."""

import re

import pytest

from tests.support.builders import ROOT
from uvb.errors import first_line, one_line, with_type


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(""), OSError(" \n ")])
def test_lines_of_errors_name_the_type_if_there_is_no_message(error: Exception) -> None:
    name = type(error).__name__
    assert [told(error) for told in (one_line, first_line, with_type)] == [name] * 3
    assert with_type(error, first_line) == name


def test_one_line_joins_lines_and_first_line_takes_the_first() -> None:
    error = ValueError("\n too  long:\n\t9 > 8 \n")
    assert one_line(error) == "too long: 9 > 8"
    assert first_line(error) == "too long:"
    assert with_type(error) == "ValueError: too long: 9 > 8"
    assert with_type(error, first_line) == "ValueError: too long:"
    assert (len(one_line(ValueError("x" * 999))), len(first_line(ValueError("x" * 999)))) == (300, 200)


def test_first_line_is_the_only_code_that_takes_an_errors_first_line() -> None:
    """``str(error).splitlines()[0]`` fails if the message is empty."""
    files = [path for folder in ("uvb", "pipelines", "tune_spaces", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert [path for path in files if re.search(r"str\(error\)[^\n]*(splitlines|split)\([^)]*\)\[0\]", path.read_text())] == []
