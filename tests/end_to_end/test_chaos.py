"""What the chaos run (`make chaos`) compares, counts and refuses. The run itself, short, is in test_disturbed_studies.py."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.end_to_end.chaos import Attack, Chaos
from tests.end_to_end.chaos_cluster import ChaosError, Driver, Nodes
from tests.end_to_end.chaos_record import Kill, require_no_traces
from tests.support.same_tables import compare


def study(folder: Path, **changes: float) -> Path:
    """Three tables of one row."""
    row = {"spec_id": "a", "split": "test", "estimator": "energy", "quantity": "kl_noisy", "epoch": 1, "model": "uvb"}
    row |= {"loss": 1.0, "run_id": str(folder), "time": float(len(str(folder))), **changes}
    (folder / "tables").mkdir(parents=True)
    for name in ("losses", "internals", "curves"):
        pd.DataFrame([row]).to_parquet(folder / "tables" / f"{name}.parquet")
    return folder


def test_the_comparison_sees_the_last_bit_and_no_more(tmp_path: Path) -> None:
    calm = study(tmp_path / "calm")
    assert "losses (1 x 7)" in compare(calm, study(tmp_path / "other_run_and_time"))
    with pytest.raises(AssertionError):
        compare(calm, study(tmp_path / "one_bit", loss=1.0 + 2**-52))
    with pytest.raises(AssertionError, match="tables are missing"):
        compare(tmp_path / "nothing", calm)


def test_kills_that_no_model_knows_of_do_not_count(tmp_path: Path) -> None:
    model = tmp_path / "digits" / "models" / "a"
    model.mkdir(parents=True)
    (model / "done.json").write_text(json.dumps({"restarts": 1}))
    kills = [Kill("worker", "training", "", 1, 1.0, "")] * 2
    with pytest.raises(ChaosError, match="2 kills during training, and the models know of 1 restarts"):
        require_no_traces(tmp_path, kills)
    (model / ".tmp-x").write_text("")
    with pytest.raises(ChaosError, match="half-written"):
        require_no_traces(tmp_path, kills[:1])


class Worker:
    """A process that trains; when it is killed, `felt` happens."""

    pid = 7

    def __init__(self, felt: Callable[[], None]) -> None:
        self.kill = felt


@pytest.mark.parametrize(("after", "counts"), [({"starts": 2}, True), ({"done": True}, False)])
def test_a_kill_counts_where_its_model_was_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: dict[str, Any], counts: bool
) -> None:
    """One that came when the model had just been trained restarts nothing, though the next model then begins."""
    for name in ("a", "b"):
        (tmp_path / "models" / name).mkdir(parents=True)
        spec = {"model": "uvb", "data": {"train_images": 300}, "recipe": {"batch_size": 100}}
        (tmp_path / "models" / name / "spec.json").write_text(json.dumps(spec))
    now = {"epoch": 1.0, "starts": 1, "images_per_s": 9.0}

    def progress(name: str, **changes: Any) -> None:
        (tmp_path / "models" / name / "progress.json").write_text(json.dumps({**now, "time": time.time(), **changes}))

    def felt() -> None:
        workers[:] = [Worker(felt)]  # those of a group begun again, or of the next model
        if "done" in after:
            (tmp_path / "models" / "a" / "done.json").write_text("{}")
            progress("b")
        else:
            progress("a", time=time.time() + 1, **after)

    workers = [Worker(felt)]
    monkeypatch.setattr("tests.end_to_end.chaos.titled", lambda mark, title: list(workers))
    monkeypatch.setattr(Driver, "require_running", lambda self: None)
    monkeypatch.setattr(Driver, "log", lambda self: "")
    progress("a")
    attack = Attack(Chaos(epochs=2, patience=5), tmp_path, Driver(tmp_path, [], ""), Nodes(""), "")
    assert attack.training_kill("worker") is counts
    assert len(attack.done) == counts


def driver_that(tmp_path: Path, ends_with: int) -> Driver:
    """A process that ends with a code of its own when its terminal closes, or at the second Ctrl-C."""
    code = f"""
import signal, sys, time
asked = []
def end(number, frame):
    asked.append(number)
    if number == signal.SIGHUP or len(asked) == 2:
        sys.exit({ends_with})
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, end)
print("ready", flush=True)
time.sleep(60)
"""
    driver = Driver(tmp_path, [], "")
    driver.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert driver.process.stdout is not None
    assert driver.process.stdout.readline() == b"ready\n"
    (tmp_path / "driver.log").write_text("its words")
    return driver


@pytest.mark.parametrize("kind", ["hangup", "impatient"])
@pytest.mark.parametrize("code", [130, 1])
def test_chaos_requires_a_driver_to_say_it_was_interrupted(kind: str, code: int, tmp_path: Path) -> None:
    driver = driver_that(tmp_path, code)
    assert driver.process is not None
    attack = Attack(Chaos(patience=20), tmp_path, driver, Nodes(""), "")
    if code == 130:
        assert attack.end_driver(kind) == driver.process.pid
    else:
        with pytest.raises(ChaosError, match=f"after {kind} the driver ended with code 1, not 130:\nits words"):
            attack.end_driver(kind)


def test_chaos_lets_a_stopped_worker_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "a"
    folder.mkdir(parents=True)
    spec = {"model": "uvb", "data": {"train_images": 300}, "recipe": {"batch_size": 100}}
    (folder / "spec.json").write_text(json.dumps(spec))
    now = {"epoch": 1.0, "starts": 1, "images_per_s": 9.0}
    (folder / "progress.json").write_text(json.dumps({**now, "time": time.time() - 5}))
    told: list[str] = []

    class Stopped(Worker):
        def suspend(self) -> None:
            told.append("stopped")

        def resume(self) -> None:
            told.append("let go")
            (folder / "progress.json").write_text(json.dumps({**now, "time": time.time() + 1}))

    monkeypatch.setattr("tests.end_to_end.chaos.titled", lambda mark, title: [Stopped(lambda: None)])
    monkeypatch.setattr(Driver, "require_running", lambda self: None)
    attack = Attack(Chaos(epochs=2, patience=5, frozen_seconds=0.1), tmp_path, Driver(tmp_path, [], ""), Nodes(""), "")
    assert attack.training_kill("frozen")
    assert told == ["stopped", "let go"]
    assert attack.done[0].evidence == "stopped for 0 s, starts 1 -> 1"
