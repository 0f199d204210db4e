"""The example script: it trains one model without Ray or MLflow."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.builders import ROOT

WITHOUT = """
import runpy, sys
sys.modules.update(ray=None, mlflow=None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_train_one_trains_and_measures_without_ray_and_mlflow(tmp_path: Path) -> None:
    options = ["--model", "uvb", "--epochs", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-c", WITHOUT, str(ROOT / "examples" / "train_one.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {row["split"] for row in rows} == {"train", "test"}
    assert 3 < rows[0]["loss"] < 5  # always predicting the mean gives 4.74
    assert (Path(done.stdout.splitlines()[-1]) / "model.safetensors").exists()
