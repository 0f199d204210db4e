"""What `make chaos` compares, counts and refuses. test_disturbed_studies.py runs a short chaos."""

import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.end_to_end import chaos
from tests.end_to_end.chaos import Chaos, compare_all, disturb, moments
from tests.end_to_end.chaos_attack import LAST_SHARE, Attack, Blow, TooLate
from tests.end_to_end.chaos_cluster import ChaosError, Driver, Nodes
from tests.end_to_end.chaos_kinds import KINDS
from tests.end_to_end.chaos_record import record, require_no_traces, require_same
from tests.support.endings import ENDINGS, end, require_ended


def study(folder: Path, **changes: float) -> Path:
    """Three tables of one row. The run_id and the time depend on the folder."""
    row = {"spec_id": "a", "split": "test", "estimator": "energy", "quantity": "kl_noisy", "epoch": 1, "model": "uvb"}
    row |= {"loss": 1.0, "run_id": str(folder), "time": float(len(str(folder))), **changes}
    (folder / "tables").mkdir(parents=True)
    for name in ("losses", "internals", "curves"):
        pd.DataFrame([row]).to_parquet(folder / "tables" / f"{name}.parquet")
    return folder


def test_require_same_sees_the_last_bit_but_no_run_ids_and_times(tmp_path: Path) -> None:
    calm = study(tmp_path / "calm")
    assert "losses (1 rows)" in require_same(calm, study(tmp_path / "other_run_and_time"))
    with pytest.raises(ChaosError, match=r"losses\.loss: 1 of 1 rows differ"):
        require_same(calm, study(tmp_path / "one_bit", loss=1.0 + 2**-52))
    with pytest.raises(ChaosError, match=r"internals\.extra"):
        require_same(calm, study(tmp_path / "one_column_more", extra=1.0))
    for root in (calm, tmp_path / "other_run_and_time"):
        (root / "tables" / "curves.parquet").unlink()
    with pytest.raises(ChaosError, match="tables are missing or empty: curves"):
        require_same(calm, tmp_path / "other_run_and_time")


def test_require_no_traces_rejects_restarts_that_no_model_recorded(tmp_path: Path) -> None:
    model = tmp_path / "digits" / "models" / "a"
    model.mkdir(parents=True)
    (model / "done.json").write_text(json.dumps({"restarts": 1}))
    blows = [Blow("", 1, 1.0, "", restarts=1)] * 2
    with pytest.raises(ChaosError, match="2 restarts were seen during training, and the models know of 1"):
        require_no_traces(tmp_path, blows)
    (model / ".tmp-x").write_text("")
    with pytest.raises(ChaosError, match="half-written"):
        require_no_traces(tmp_path, blows[:1])


def test_moments_cover_every_kind_in_its_order() -> None:
    """A moment is a kind, and the share of the training before it. "task" and "report" strike after the training."""
    times = dict.fromkeys(KINDS, 2)
    found = list(moments(times, random.Random(0)))
    assert sorted(name for name, _ in found) == sorted(2 * list(KINDS))
    shares = [share for _, share in found]
    assert shares == sorted(shares)
    assert [name for name, share in found if share == 1] == ["task", "task", "report", "report"]
    assert max(share for share in shares if share < 1) < LAST_SHARE
    training = [name for name, share in found if share < 1]
    assert training[:2] == ["storage"] * 2
    assert training[-2:] == ["mlflow"] * 2
    assert training != [name for name, share in moments(times, random.Random(1)) if share < 1]


def test_record_says_kinds_counts_and_equal_tables(tmp_path: Path) -> None:
    blows = [Blow("", 1, seconds, "", kind=kind) for kind, seconds in (("worker", 1.0), ("node", 5.0), ("worker", 3.0))]
    for _ in range(2):
        record(blows, {"equal_tables": "losses (4 x 9)", "skipped": {"storage": "no mount"}}, tmp_path / "chaos" / "runs.json")
    first, second = json.loads((tmp_path / "chaos" / "runs.json").read_text())
    assert first["kinds"] == second["kinds"] == {
        "worker": {"times": 2, "median_seconds": 2.0, "worst_seconds": 3.0},
        "node": {"times": 1, "median_seconds": 5.0, "worst_seconds": 5.0},
    }  # fmt: skip
    assert (first["blows"], first["equal_tables"], first["skipped"]) == (3, "losses (4 x 9)", {"storage": "no mount"})
    assert first["commit"]


def test_rounds_go_on_after_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round has its own seed. A failed round restarts the cluster. The error at the end names the failed round."""
    told: list[object] = []

    def compare(asked: Chaos, *_: object) -> list[Blow]:
        told.append(asked.seed)
        if asked.seed == 8:
            raise ChaosError("losses differ")
        return [Blow("", 1, 1.0, "")]

    monkeypatch.setattr(chaos, "undisturbed", lambda *_: (tmp_path, 1.0))
    monkeypatch.setattr(chaos, "compare_disturbed", compare)
    monkeypatch.setattr(Nodes, "restart", lambda self: told.append("restart"))
    with pytest.raises(ChaosError, match=r"^seed 8: losses differ$"):
        compare_all(Chaos(seed=7, rounds=3), tmp_path, Nodes("no process has this mark"))
    assert told == [7, 8, "restart", 9]


class Worker:
    """A process that trains. `felt` is called when the process is killed or resumed."""

    pid = 7

    def __init__(self, felt: Callable[[], None]) -> None:
        self.kill = self.resume = felt
        self.told: list[str] = []

    def suspend(self) -> None:
        self.told.append("stopped")


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attack:
    """An attack on a study of two models. The first model trains."""
    for name in ("a", "b"):
        (tmp_path / "models" / name).mkdir(parents=True)
        spec = {"model": "uvb", "data": {"train_images": 300}, "recipe": {"batch_size": 100}}
        (tmp_path / "models" / name / "spec.json").write_text(json.dumps(spec))
    progress(tmp_path, "a", time=time.time() - 5)
    monkeypatch.setattr(Driver, "require_running", lambda self: None)
    monkeypatch.setattr(Driver, "said", lambda self: "")
    return Attack(tmp_path, Driver(tmp_path, [], ""), Nodes(""), 2, 5.0, random.Random(0), frozen_seconds=0.1)


def progress(study: Path, model: str, **changes: Any) -> None:
    now = {"epoch": 1.0, "starts": 1, "images_per_s": 9.0, "time": time.time(), **changes}
    (study / "models" / model / "progress.json").write_text(json.dumps(now))


def set_workers(monkeypatch: pytest.MonkeyPatch, workers: list[Worker]) -> None:
    for module in ("chaos_attack", "chaos_kinds"):
        monkeypatch.setattr(f"tests.end_to_end.{module}.titled", lambda mark, title: list(workers))


@pytest.mark.parametrize("ended", [False, True])
def test_blow_counts_only_if_its_model_was_begun_again(attack: Attack, monkeypatch: pytest.MonkeyPatch, ended: bool) -> None:
    """If the model's training has just ended, a blow restarts nothing. The next model then begins as usual."""

    def felt() -> None:
        workers[:] = [Worker(felt)]  # the new worker trains the same model again, or the next model
        if ended:
            (attack.study / "models" / "a" / "done.json").write_text("{}")
            progress(attack.study, "b")
        else:
            progress(attack.study, "a", time=time.time() + 1, starts=2)

    workers = [Worker(felt)]
    set_workers(monkeypatch, workers)
    if ended:
        with pytest.raises(TooLate, match="when its model had just been trained"):
            KINDS["worker"].strike(attack)
    else:
        blow = KINDS["worker"].strike(attack)
        assert (blow.evidence, blow.restarts) == ("new process 7, starts 1 -> 2", 1)


def test_disturb_repeats_a_blow_that_came_too_late(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [TooLate("at first"), None]

    def strike(_: Attack) -> Blow:
        if error := left.pop(0):
            raise error
        return Blow("here", 7, 1.0, "")

    monkeypatch.setitem(KINDS, "task", dataclasses.replace(KINDS["task"], strike=strike))
    assert [blow.kind for blow in disturb(attack, {"task": 1})] == ["task"]
    assert not left


def test_frozen_lets_a_stopped_worker_go_on(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = Worker(lambda: progress(attack.study, "a", time=time.time() + 1))
    set_workers(monkeypatch, [stopped])
    blow = KINDS["frozen"].strike(attack)
    assert stopped.told == ["stopped"]
    assert (blow.evidence, blow.restarts) == ("stopped for 0 s, starts 1 -> 1", 0)


# A process that prints its first argument at SIGHUP or at the second SIGINT, and exits with the code in its second argument.
CODE = """
import signal, sys, time
asked = []
def end(number, frame):
    asked.append(number)
    if number == signal.SIGHUP or len(asked) == 2:
        print(sys.argv[1], flush=True)
        sys.exit(int(sys.argv[2]))
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, end)
print("ready", flush=True)
time.sleep(60)
"""
GOES_ON = "interrupted; run the same command again to continue"


@pytest.mark.parametrize("kind", ["hangup", "impatient"])
@pytest.mark.parametrize(
    ("says", "code", "wrong"),
    [
        (GOES_ON, 130, ""),
        (GOES_ON, 1, "the driver ended with code 1, not 130"),
        ("bye", 130, "the driver's last line is not 'interrupted; "),
        (f"Traceback\n{GOES_ON}", 130, "Traceback"),
    ],
)
def test_require_ended_checks_code_and_last_line(kind: str, says: str, code: int, wrong: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CODE, says, str(code)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        assert end(ENDINGS[kind], driver, lambda name: pytest.fail(name)) == driver.pid
        driver.wait(20)
        said = driver.stdout.read()
        if not wrong:
            require_ended(ENDINGS[kind], driver, lambda: said)
        else:
            with pytest.raises(AssertionError, match=wrong):
                require_ended(ENDINGS[kind], driver, lambda: said)
