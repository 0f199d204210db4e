"""What a study prints if its output is not a terminal."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from pipelines.study.screen import Screen


def test_screen_prints_no_unchanged_line_twice_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100, 1000, 11))  # seconds far enough apart that each call may print a line
    monkeypatch.setattr("pipelines.study.screen.time.monotonic", lambda: next(seconds))
    out = io.StringIO()
    screen = Screen(Console(file=out))
    for line in ("starting", "starting", "1 of 2", "1 of 2", "2 of 2"):
        screen.show(Text(line), line)
    assert out.getvalue().splitlines() == ["starting", "1 of 2", "2 of 2"]
