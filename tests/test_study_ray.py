"""Whole studies under Ray on this machine: complete, resumable after kills, stoppable, one at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

TINY = ["--address", "local", "--models", "uvb", "--extra-models", "vae", "--sigmas", "0.5", "1.0", "--train-images", "300",
        "--eval-images", "100", "--eval-test-images", "100", "--eval-draws", "1", "--scale", "0.02", "--experiments", "losses",
        "internals", "--checkpoint-seconds", "0.5"]  # fmt: skip

EPOCHS = "40"  # each model trains for seconds, so that what is done to the study finds it at work


def start(folder: Path, *arguments: str, script: str = "full_study.py") -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "pipelines" / script), *TINY, *arguments]
    out = open(folder / "out.txt", "a+")  # noqa: SIM115  # lives as long as the process
    return subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str], folder: Path, code: int = 0) -> str:
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
    return pd.read_parquet(folder / "outputs" / "digits" / "tables" / f"{name}.parquet").drop(columns=columns, errors="ignore")


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted((folder / "outputs" / "digits").glob(pattern))}


def run_statuses(folder: Path) -> list[str]:
    import sqlite3

    with sqlite3.connect(folder / "mlflow.db") as connection:
        return [status for (status,) in connection.execute("select status from runs")]


def test_study_survives_and_ends_the_same(tmp_path: Path) -> None:
    quiet, rough = tmp_path / "quiet", tmp_path / "rough"
    out = finish(start(quiet, "--epochs", EPOCHS), quiet)
    report = Path(out.strip().splitlines()[-1])
    assert report == quiet / "outputs" / "digits" / "report.html"
    assert report.stat().st_size > 10_000
    losses = table(quiet, "losses")
    assert len(losses[losses.estimator == "energy"]) == 3 * 2  # three models, two splits
    assert losses[losses.split == "train"].floor.notna().all()
    assert set(run_statuses(quiet)) == {"FINISHED"}
    assert not (quiet / "outputs" / "digits" / "ray").exists()

    # it is started twice; a worker dies in mid-training; the person presses Ctrl-C; the same command runs again
    process = start(rough, "--epochs", EPOCHS)
    wait_for(lambda: (rough / "outputs" / "digits" / "study.json").exists(), process)
    second = start(rough, "--epochs", EPOCHS)
    assert second.wait(timeout=120) == 2  # one study of a name at a time
    assert "is already run by" in (rough / "out.txt").read_text()
    states = lambda: list((rough / "outputs").glob("digits/models/*/state/0*/state.json"))  # noqa: E731
    wait_for(states, process)
    workers(process)[0].send_signal(signal.SIGKILL)
    wait_for(lambda: "(start 2)" in (rough / "out.txt").read_text(), process)
    wait_for(lambda: list((rough / "outputs").glob("digits/models/*/done.json")), process)
    left = children(process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert "worker.py" not in finish(process, rough, code=130)  # Ray's own words; a second Ray would say some
    assert time.monotonic() - began < 60
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive
    assert "RUNNING" not in run_statuses(rough)
    kept = contents(rough, "models/*/done.json")
    assert 1 <= len(kept) < 3
    planned = lambda: (rough / "out.txt").read_text().count(" to train: ")  # noqa: E731
    plans, process = planned(), start(rough, "--epochs", EPOCHS)
    wait_for(lambda: planned() > plans, process)
    half_written = rough / "outputs" / "digits" / "models" / ".tmp-by-one-that-was-killed"
    half_written.write_text("")
    finish(process, rough)
    assert not half_written.exists()
    assert kept.items() <= contents(rough, "models/*/done.json").items()
    for name in ("losses", "internals", "curves", "references"):
        pd.testing.assert_frame_equal(table(rough, name), table(quiet, name), check_exact=True)
    assert sorted(run_statuses(rough)) == sorted(run_statuses(quiet))  # continued, not duplicated

    # once more: nothing is left to do
    before = contents(quiet, "models/*/*.json") | contents(quiet, "tasks/*/*/*")
    again = finish(start(quiet, "--epochs", EPOCHS), quiet)
    assert "3 of 3 models are trained already" in again
    assert contents(quiet, "models/*/*.json") | contents(quiet, "tasks/*/*/*") == before


SEARCH = """
import dataclasses, sys
from pipelines.cli import command
from pipelines.sweep import SweepConfig, sweep
from tune_spaces import register_space

@register_space("rates", kind="search")
def rates(base):
    "Three learning rates, of which two do badly."
    recipes = [dataclasses.replace(base.recipe, learning_rate=rate) for rate in (1e-3, 1e-9, 1e-8)]
    return [base.spec("uvb", recipe=recipe) for recipe in recipes]

command(SweepConfig, sweep)
"""


def test_search_stops_what_does_badly(tmp_path: Path) -> None:
    arguments = [*TINY, "--space", "rates", "--epochs", "9", "--experiments", "losses"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", SEARCH, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    folder = tmp_path / "outputs" / "digits-rates"
    board = pd.read_parquet(folder / "tables" / "leaderboard.parquet")
    assert len(board) == 3
    assert board.iloc[0].learning_rate == 1e-3
    assert board.iloc[0].ended == "done"
    assert (board[board.learning_rate < 1e-3].ended == "stopped early").any()
    assert (board[board.ended == "stopped early"].epochs < 9).all()
    assert json.loads((folder / "study.json").read_text())["config"]["space"] == "rates"
