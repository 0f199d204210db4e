"""Whole studies under Ray are killed, stopped and damaged. Each must end like an undisturbed study."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pandas as pd
import psutil
import pytest

from tests.end_to_end.chaos_attack import WORKER
from tests.end_to_end.chaos_kinds import KINDS
from tests.end_to_end.chaos_record import require_same
from tests.support.builders import ROOT
from tests.support.endings import run_statuses
from tests.support.marked import MARK, end_marked, marked, titled
from tests.support.studies import SIZE_ARGUMENTS, study

pytestmark = pytest.mark.slow
# "frozen" and "report" take a minute or more. test_sudden_ends.py tests "raylet" and "control_server", Ray's own processes.
ONCE = [name for name in KINDS if name not in ("frozen", "report", "raylet", "control_server")]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of an undisturbed `studies.study` with two workers. No test may change the folder."""
    folder, mark = tmp_path_factory.mktemp("two"), uuid4().hex
    try:
        assert study(folder, mark, "--num-workers", "2").wait(600) == 0, (folder / "out.txt").read_text()
        yield folder
    finally:
        end_marked(mark)


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid4().hex
    yield mark
    end_marked(mark)
    assert not marked(mark)


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


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted((folder / "digits").glob(pattern))}


def test_study_survives_and_ends_the_same(tmp_path: Path, two_workers: Path, mark: str) -> None:
    """A second driver is refused, a worker dies in mid-training, a person presses Ctrl-C, and the same command runs again."""
    quiet, rough = two_workers, tmp_path / "rough"
    start = lambda: study(rough, mark, "--num-workers", "2")  # noqa: E731
    process = start()
    wait_for(lambda: (rough / "digits" / "study.json").exists(), process)
    assert start().wait(timeout=120) == 2  # a second driver of the same study is refused
    assert "is already run by" in (rough / "out.txt").read_text()
    wait_for(lambda: list(rough.glob("digits/models/*/state/0*/state.json")), process)
    titled(mark, WORKER)[0].kill()
    wait_for(lambda: "(start 2)" in (rough / "out.txt").read_text(), process)
    wait_for(lambda: list(rough.glob("digits/models/*/done.json")), process)
    left = [each for each in marked(mark) if each.pid != process.pid]
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert "worker.py" not in finish(process, rough, code=130)  # only Ray's own messages contain this file name
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
    losses = pd.read_parquet(rough / "digits" / "tables" / "losses.parquet")
    assert len(losses[losses.estimator == "energy"]) == 2 * 2  # models, splits
    assert losses[losses.split == "train"].floor.notna().all()
    assert "references" in require_same(quiet / "digits", rough / "digits")
    assert sorted(run_statuses(rough)) == sorted(run_statuses(quiet))  # no run exists twice
    assert set(run_statuses(quiet)) == {"FINISHED"}

    # Another run has no work left.
    before = contents(rough, "models/*/*.json") | contents(rough, "tasks/*/*/*")
    assert "2 of 2 models are trained already" in finish(start(), rough)
    assert contents(rough, "models/*/*.json") | contents(rough, "tasks/*/*/*") == before


def states(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted((folder / "digits").glob("models/*/state/0*"), key=lambda path: path.name)


@pytest.mark.timeout(1200)
def test_study_skips_damaged_and_refuses_foreign_checkpoints(tmp_path: Path, mark: str, two_workers: Path) -> None:
    """The driver is killed and the newest checkpoint is cut short. The study uses the checkpoint before it and says so.

    A checkpoint of another model is refused, and its model fails until a person removes it.

    The study has one worker. Its losses equal those of the undisturbed study with two workers up to rounding.
    """
    rough = tmp_path / "rough"
    killed = study(rough, mark, "--num-workers", "1")
    deadline = time.monotonic() + 600
    while len(states(rough)) < 2:
        assert killed.poll() is None, (rough / "out.txt").read_text()
        assert time.monotonic() < deadline, "no checkpoints"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    end_marked(mark)
    *_, older, newest = states(rough)  # these two are of one model; the kill may have left an older third one
    assert older.parents[1] == newest.parents[1]
    damaged = newest / "state.safetensors"
    os.truncate(damaged, damaged.stat().st_size // 2)
    half_trained = older.parents[1].name
    (other,) = (path for path in (rough / "digits" / "models").iterdir() if path.name != half_trained)
    foreign = other / "state" / older.name
    foreign.parent.mkdir()
    subprocess.run(["cp", "-r", older, foreign], check=True)

    assert study(rough, mark, "--num-workers", "1").wait(600) == 1, "one model was refused, so the study must fail"
    said = (rough / "out.txt").read_text()
    assert f"checkpoint {newest.name} is not used" in said
    assert f"continues from step {int(older.name)} " in said
    names = {path.name: json.loads((path / "spec.json").read_text())["model"] for path in other.parent.iterdir()}
    assert re.search(rf"failed: .*another configuration \(.*model: {names[half_trained]} != {names[other.name]}", said)

    (foreign / "state.json").unlink()  # the error message asked for this
    foreign.rename(tmp_path / "removed")
    assert study(rough, mark, "--num-workers", "1").wait(600) == 0, (rough / "out.txt").read_text()
    assert not (rough / "digits" / "ray").exists()
    require_equal_but_for_rounding(rough, two_workers)


def require_equal_but_for_rounding(one_worker: Path, two_workers: Path) -> None:
    """Data parallelism changes only rounding, so the losses agree within 0.5 %."""
    tables = []
    for workers, folder in ((1, one_worker), (2, two_workers)):
        plans = [json.loads(path.read_text()) for path in folder.glob("digits/models/*/plan.json")]
        assert {plan["workers"] for plan in plans} == {workers}
        table = pd.read_parquet(folder / "digits/tables/losses.parquet")
        tables.append(table.set_index(["spec_id", "split", "estimator"]))
    one, two = tables
    assert len(one) >= 4
    assert set(one.index) == set(two.index)
    assert ((two.loss / one.loss - 1).abs() < 0.005).all()
    assert (two.loss != one.loss).any(), "two workers add in another order, so some loss must differ"


@pytest.mark.timeout(2400)
def test_each_kind_of_chaos_once_changes_nothing(tmp_path: Path, two_workers: Path, mark: str) -> None:
    once = [word for kind in ONCE for word in (kind, "1")]
    command = [sys.executable, "-m", "tests.end_to_end.chaos", *SIZE_ARGUMENTS, "--calm", str(two_workers), "--times", *once]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path / "kept"), "--patience", "600"], env={**os.environ, MARK: mark}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    blows = json.loads((tmp_path / "kept" / "blows.json").read_text())
    skipped = {"storage"} if "storage is skipped" in done.stdout else set()
    assert sorted(blow["kind"] for blow in blows) == sorted(set(ONCE) - skipped)
    assert any("half-written" in blow["evidence"] for blow in blows)
    assert not marked(mark), "processes are left"
