"""A study on one machine ends early: a process of Ray is killed, the terminal is closed, or Ctrl-C is pressed repeatedly."""

import time
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.support.endings import ENDINGS, end, require_ended, run_statuses
from tests.support.marked import end_marked, marked
from tests.support.studies import study

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ENDINGS)
def test_study_ends_soon_in_one_line_and_leaves_nothing_running(kind: str, tmp_path: Path) -> None:
    ending, mark = ENDINGS[kind], uuid4().hex
    output = (tmp_path / "out.txt").read_text
    try:
        driver = study(tmp_path, mark, "--epochs", "5000", "--num-workers", "1")
        deadline = time.monotonic() + 900  # workers start slowly while other tests run
        while "images/s" not in output():
            assert driver.poll() is None, output()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        children = {child.name(): child for child in psutil.Process(driver.pid).children()}
        end(ending, driver, children.__getitem__)
        require_ended(ending, driver, output)
        assert set(run_statuses(tmp_path)) == {ending.status}
        psutil.wait_procs(marked(mark), timeout=30)
        assert marked(mark) == []
    finally:
        end_marked(mark)
