"""Ways to end a study early, and what the study must print and leave behind."""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

INTERRUPTED = "interrupted; run the same command again to continue"
LOST = "; run the same command again to continue from the last checkpoints"
SOON = 60.0  # seconds; Ray itself waits this long for its control server
PAUSE = 0.5  # seconds between two signals


@dataclass(frozen=True)
class Ending:
    """A way to end a study, and what must follow: the exit code, the last line, and the status of its open MLflow runs."""

    code: int
    said: str
    status: str
    signals: tuple[signal.Signals, ...] = ()
    victim: str = ""
    """The name of the Ray process to kill. Empty: send `signals` to the driver."""


ENDINGS = {
    "raylet": Ending(1, f"error: Ray lost its process on this machine (the raylet){LOST}", "FAILED", victim="raylet"),
    "control_server": Ending(1, f"error: Ray lost its control server{LOST}", "FAILED", victim="gcs_server"),
    "hangup": Ending(130, INTERRUPTED, "KILLED", (signal.SIGHUP,)),
    "impatient": Ending(130, INTERRUPTED, "KILLED", (signal.SIGINT,) * 3),
}


def end(ending: Ending, driver: "subprocess.Popen[Any]", of_ray: Callable[[str], psutil.Process]) -> int:
    """Kill the victim, or send the signals to the driver. Return the id of the victim or the driver.

    Args:
        of_ray: finds a process of the driver's Ray by its name.
    """
    if ending.victim:
        process = of_ray(ending.victim)
        process.kill()
        return process.pid
    for number in ending.signals:
        with suppress(ProcessLookupError):  # the first signal may have ended the driver
            driver.send_signal(number)
        time.sleep(PAUSE)
    return driver.pid


def require_ended(ending: Ending, driver: "subprocess.Popen[Any]", output: Callable[[], str], seconds: float = SOON) -> None:
    """Check that the driver ends in time, with the right code and last line, and prints no traceback."""
    code = driver.wait(seconds)
    said = output()
    assert code == ending.code, f"the driver ended with code {code}, not {ending.code}:\n{said}"
    assert said.splitlines()[-1] == ending.said, f"the driver's last line is not {ending.said!r}:\n{said}"
    assert "Traceback" not in said, said


def run_statuses(folder: Path) -> list[str]:
    """The status of each MLflow run in `folder`/mlflow.db that is not deleted."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return [status for (status,) in connection.execute("select status from runs where lifecycle_stage = 'active'")]
