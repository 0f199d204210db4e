"""Run a small whole study as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.chaos import STUDY
from tests.support.builders import ROOT
from tests.support.marked import MARK

SIZE = {"epochs": "30", "eval-draws": "60"}
SIZE_ARGUMENTS = [word for name, value in SIZE.items() for word in (f"--{name}", value)]


def study(folder: Path, mark: str, *more: str) -> "subprocess.Popen[str]":
    """Start the study of `make chaos`, of two models, in `folder`/digits; its output goes to out.txt."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), *STUDY, *SIZE_ARGUMENTS, "--address", "local"]
    with open(folder / "out.txt", "a") as out:
        environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, "--storage", str(folder), *more], cwd=folder, stdout=out, stderr=out, text=True, env=environment
        )
