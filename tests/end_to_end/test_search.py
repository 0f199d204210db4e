"""A search under Ray on this machine stops bad trainings early."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.builders import ROOT

pytestmark = pytest.mark.slow

TINY = ["--address", "local", "--sigmas", "1.0", "--extra-models", "--train-images", "300",
        "--eval-images", "100", "--eval-test-images", "100", "--eval-draws", "1", "--scale", "0.02", "--experiments", "losses",
        "--checkpoint-seconds", "0.5"]  # fmt: skip


SEARCH = """
import dataclasses, sys
from pipelines.cli import command
from pipelines.sweep import SweepConfig, sweep
from tune_spaces import register_space

@register_space("rates", kind="search")
def rates(base):
    "A good learning rate and a bad one."
    recipes = [dataclasses.replace(base.recipe, learning_rate=rate) for rate in (1e-3, 1e-9)]
    return [base.spec("uvb", recipe=recipe) for recipe in recipes]

command(SweepConfig, sweep)
"""


def test_search_stops_bad_trainings_early(tmp_path: Path) -> None:
    # One trial at a time. The training with the good rate comes first, because its spec_id sorts first.
    arguments = [*TINY, "--space", "rates", "--epochs", "9", "--concurrent-trials", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", SEARCH, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    folder = tmp_path / "outputs" / "digits-rates"
    board = pd.read_parquet(folder / "tables" / "leaderboard.parquet")
    assert len(board) == 2
    assert board.iloc[0].learning_rate == 1e-3
    assert board.iloc[0].ended == "done"
    assert (board[board.learning_rate < 1e-3].ended == "stopped early").any()
    assert (board[board.ended == "stopped early"].epochs < 9).all()
    assert not list(folder.glob("models/*/state"))
    assert json.loads((folder / "study.json").read_text())["config"]["space"] == "rates"
