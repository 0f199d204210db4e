"""The options of small whole studies, and a function that runs one in its own process."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.builders import ROOT
from tests.support.marked import MARK

STUDY = ["--sigmas", "1.0", "--models", "uvb", "deen", "--extra-models", "--experiments", "losses", "internals", "denoise_rows",
         "--num-workers", "2", "--cpus-per-worker", "0.9", "--concurrent-trials", "1", "--train-images", "300",
         "--width", "0.4", "--eval-images", "100", "--eval-test-images", "100", "--checkpoint-seconds", "0.5"]  # fmt: skip
TINY = ["--sigmas", "1.0", "--models", "uvb", "--extra-models", "--epochs", "1", "--train-images", "64", "--eval-images", "50",
        "--eval-test-images", "50", "--eval-draws", "1", "--experiments", "losses", "--num-workers", "1"]  # fmt: skip
SIZE = {"epochs": "60", "eval-draws": "60"}
SIZE_ARGUMENTS = [word for name, value in SIZE.items() for word in (f"--{name}", value)]


def study(folder: Path, mark: str, *more: str) -> "subprocess.Popen[str]":
    """Start the study of two models that `make chaos` runs, in `folder`/digits. Its output goes to out.txt."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), *STUDY, *SIZE_ARGUMENTS, "--address", "local"]
    with open(folder / "out.txt", "a") as out:
        environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [*command, "--storage", str(folder), *more], cwd=folder, stdout=out, stderr=out, text=True, env=environment
        )
