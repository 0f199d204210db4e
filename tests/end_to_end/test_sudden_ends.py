"""What ends a study before its time: Ray's own processes killed, a closed terminal, an impatient person."""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.support.marked import end_marked, marked
from tests.support.studies import study

pytestmark = pytest.mark.slow

LOST = "the same command goes on from the last checkpoints"
SECONDS = 60.0  # Ray itself would wait so long for its control server


def killed(name: str) -> Callable[["subprocess.Popen[str]"], None]:
    """Kills the process of that name that the study's driver started."""

    def kill(driver: "subprocess.Popen[str]") -> None:
        (victim,) = [child for child in psutil.Process(driver.pid).children() if child.name() == name]
        victim.kill()

    return kill


def signalled(*numbers: signal.Signals) -> Callable[["subprocess.Popen[str]"], None]:
    """Sends the signals one after the other, half a second apart."""

    def send(driver: "subprocess.Popen[str]") -> None:
        for number in numbers:
            driver.send_signal(number)
            time.sleep(0.5)

    return send


ENDS = {
    "raylet": (killed("raylet"), 1, f"error: Ray lost its process on this machine (the raylet); {LOST}", "FAILED"),
    "control server": (killed("gcs_server"), 1, f"error: Ray lost its control server; {LOST}", "FAILED"),
    "closed terminal": (signalled(signal.SIGHUP), 130, "interrupted; the same command goes on from here", "KILLED"),
    "impatient": (signalled(*[signal.SIGINT] * 3), 130, "interrupted; the same command goes on from here", "KILLED"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_study_ends_soon_in_one_line_and_leaves_nothing_running(kind: str, tmp_path: Path) -> None:
    disturb, code, said, status = ENDS[kind]
    mark = uuid4().hex
    try:
        driver = study(tmp_path, mark, "--epochs", "5000")
        deadline = time.monotonic() + 900  # beside other tests workers start slowly
        while "images/s" not in (tmp_path / "out.txt").read_text():
            assert driver.poll() is None, (tmp_path / "out.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        began = time.monotonic()
        disturb(driver)
        assert driver.wait(timeout=120) == code
        assert time.monotonic() - began < SECONDS
        lines = (tmp_path / "out.txt").read_text().splitlines()
        assert lines[-1] == said
        assert not any("Traceback" in line for line in lines)
        with sqlite3.connect(tmp_path / "mlflow.db") as connection:
            assert {row[0] for row in connection.execute("select status from runs")} == {status}
        psutil.wait_procs(marked(mark), timeout=30)
        assert marked(mark) == []
    finally:
        end_marked(mark)
