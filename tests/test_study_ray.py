"""Whole studies under Ray on this machine: complete, resumable after kills, stoppable, one at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pandas as pd
import psutil
import pytest
from conftest import ROOT
from marked import end_marked
from studies import study

pytestmark = pytest.mark.slow

TINY = ["--address", "local", "--sigmas", "1.0", "--extra-models", "--train-images", "300",
        "--eval-images", "100", "--eval-test-images", "100", "--eval-draws", "1", "--scale", "0.02", "--experiments", "losses",
        "--checkpoint-seconds", "0.5"]  # fmt: skip


def finish(process: "subprocess.Popen[str]", folder: Path, code: int = 0) -> str:
    assert process.wait(timeout=600) == code, (folder / "out.txt").read_text()
    return (folder / "out.txt").read_text()


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 300) -> object:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None, "the study ended before it could be disturbed"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)
    return found


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in children(process):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def table(folder: Path, name: str) -> pd.DataFrame:
    columns = ["run_id", "images_per_s", "seconds", "time"]  # what may differ
    return pd.read_parquet(folder / "digits" / "tables" / f"{name}.parquet").drop(columns=columns, errors="ignore")


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted((folder / "digits").glob(pattern))}


def run_statuses(folder: Path) -> list[str]:
    import sqlite3

    with sqlite3.connect(folder / "mlflow.db") as connection:
        return [status for (status,) in connection.execute("select status from runs")]


@pytest.mark.xdist_group("two workers")
def test_study_survives_and_ends_the_same(tmp_path: Path, two_workers: Path) -> None:
    """Started twice; a worker dies in mid-training; the person presses Ctrl-C; the same command runs again."""
    quiet, rough, mark = two_workers, tmp_path / "rough", uuid4().hex
    start = lambda: study(rough, mark, "--num-workers", "2")  # noqa: E731
    try:
        process = start()
        wait_for(lambda: (rough / "digits" / "study.json").exists(), process)
        assert start().wait(timeout=120) == 2  # one study of a name at a time
        assert "is already run by" in (rough / "out.txt").read_text()
        wait_for(lambda: list(rough.glob("digits/models/*/state/0*/state.json")), process)
        workers(process)[0].send_signal(signal.SIGKILL)
        wait_for(lambda: "(start 2)" in (rough / "out.txt").read_text(), process)
        wait_for(lambda: list(rough.glob("digits/models/*/done.json")), process)
        left = children(process)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert "worker.py" not in finish(process, rough, code=130)  # Ray's own words; a second Ray would say some
        assert time.monotonic() - began < 60
        _, alive = psutil.wait_procs(left, timeout=20)
        assert not alive
        assert "RUNNING" not in run_statuses(rough)
        kept = contents(rough, "models/*/done.json")
        assert len(kept) == 1
        planned = lambda: (rough / "out.txt").read_text().count(" to train: ")  # noqa: E731
        plans, process = planned(), start()
        wait_for(lambda: planned() > plans, process)
        half_written = rough / "digits" / "models" / ".tmp-by-one-that-was-killed"
        half_written.write_text("")
        report = Path(finish(process, rough).strip().splitlines()[-1])
        assert report == rough / "digits" / "report.html"
        assert report.stat().st_size > 10_000
        assert not half_written.exists()
        assert not (rough / "digits" / "ray").exists()
        assert kept.items() <= contents(rough, "models/*/done.json").items()
        losses = table(rough, "losses")
        assert len(losses[losses.estimator == "energy"]) == 2 * 2  # two models, two splits
        assert losses[losses.split == "train"].floor.notna().all()
        for name in ("losses", "internals", "curves", "references"):
            pd.testing.assert_frame_equal(table(rough, name), table(quiet, name), check_exact=True)
        assert sorted(run_statuses(rough)) == sorted(run_statuses(quiet))  # continued, not duplicated
        assert set(run_statuses(quiet)) == {"FINISHED"}

        # once more: nothing is left to do
        before = contents(rough, "models/*/*.json") | contents(rough, "tasks/*/*/*")
        assert "2 of 2 models are trained already" in finish(start(), rough)
        assert contents(rough, "models/*/*.json") | contents(rough, "tasks/*/*/*") == before
    finally:
        end_marked(mark)


SEARCH = """
import dataclasses, sys
from pipelines.cli import command
from pipelines.sweep import SweepConfig, sweep
from tune_spaces import register_space

@register_space("rates", kind="search")
def rates(base):
    "Two learning rates, of which one does badly."
    recipes = [dataclasses.replace(base.recipe, learning_rate=rate) for rate in (1e-3, 1e-9)]
    return [base.spec("uvb", recipe=recipe) for recipe in recipes]

command(SweepConfig, sweep)
"""


def test_search_stops_what_does_badly(tmp_path: Path) -> None:
    arguments = [*TINY, "--space", "rates", "--epochs", "9", "--concurrent-trials", "1"]  # so the good one comes first
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
