"""The progress of a study: it counts the work, tells each line once, and estimates the time left."""

import dataclasses
import os
import re
import time
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.cluster.cost_model import training_flops
from pipelines.cluster.estimate import FP32_COST, measurement_flops
from pipelines.executor.measuring import tasks_for
from pipelines.files.store import Store
from pipelines.study.progress import REST_SECONDS, TASK_SECONDS, TrainingProgress
from pipelines.words import clock
from tests.support.builders import tiny_spec
from tests.support.one_training import train
from uvb.data import ImageSet
from uvb.experiments import Context
from uvb.measure.losses import EvalConfig
from uvb.models import build_model
from uvb.models.base import Energy
from uvb.plan import Plan
from uvb.training.state import steps_per_epoch


def test_progress_waits_for_a_store_that_does_not_answer(
    store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    progress = TrainingProgress([spec], store)
    with monkeypatch.context() as away:
        away.setattr(Store, "exists", Mock(side_effect=OSError("curl: 28")))
        assert progress.read() == []
        assert len(progress.outcome) == 0
    progress.read()
    assert len(progress.outcome) == 1


def test_progress_counts_work_and_tells_each_line_once(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, "uvb"), tiny_spec(digits, "deen")]
    progress = TrainingProgress(specs, store, tasks=3)
    assert progress.read() == []
    assert progress.work()[0] == 0
    train(specs[0], store)
    store.write_json(f"models/{specs[1].spec_id}/failed.json", {"error": "deen went wrong"})
    assert progress.read() == ["failed: deen went wrong"]
    assert progress.read() == []
    assert len(progress.outcome) == 2
    assert progress.work()[0] == progress.work()[1] == sum(map(training_flops, specs))
    assert [clock(s) for s in (5, 65, 3700)] == ["5 s", "1 min 5 s", "1 h 1 min"]


def test_time_left_counts_the_measurements(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the training took 10 s, so the other half takes 10 s. The measurements are as much work as the training: 20 s.

    If the measurements were timed, their seconds count instead.
    """
    spec = tiny_spec(digits)
    work, clock_says = training_flops(spec), iter((100.0, 110.0, 110.0))
    monkeypatch.setattr("pipelines.study.progress.time", SimpleNamespace(monotonic=lambda: next(clock_says), time=time.time))
    progress = TrainingProgress([spec], store, tasks=5, operations=work)

    def at(epoch: float) -> None:
        now = {"epoch": epoch, "images_per_s": 1.0, "time": time.time()}
        store.write_json(f"models/{spec.spec_id}/progress.json", now)
        assert progress.read() == []

    at(0.0)
    assert progress.seconds_left() is None  # no pace yet
    at(spec.recipe.epochs / 2)
    assert progress.seconds_left() == pytest.approx(10 + 20 + 5 * TASK_SECONDS + REST_SECONDS)
    progress.operations, progress.seconds = 0.0, 33.0
    assert progress.seconds_left() == pytest.approx(10 + 33 + 5 * TASK_SECONDS + REST_SECONDS)


def test_progress_counts_only_this_sessions_work(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier session was killed at three quarters of the training, and left a checkpoint at half.

    This session trains the third quarter again, in 10 s.
    """
    spec = tiny_spec(digits)
    epochs, clock_says = spec.recipe.epochs, iter((100.0, 110.0))
    monkeypatch.setattr("pipelines.study.progress.time", SimpleNamespace(monotonic=lambda: next(clock_says), time=time.time))

    def wrote(share: float, **more: object) -> None:
        now = {"epoch": share * epochs, "images_per_s": 1.0, "time": time.time(), **more}
        store.write_json(f"models/{spec.spec_id}/progress.json", now)

    wrote(0.75, start="fresh", notes=["of the session before"])
    progress = TrainingProgress([spec], store)
    assert progress.read() == []
    assert progress.running == []
    assert re.search(r"starting workers since \d\d:\d\d:\d\d$", progress.view()[1])
    half = str(epochs * steps_per_epoch(spec) // 2)
    wrote(0.75, start=half, notes=["continues from a checkpoint"], images_per_s=None)  # as `Training` writes when it continues
    assert progress.read() == ["continues from a checkpoint"]
    assert progress.running == []
    assert progress.gained() == 0
    wrote(0.5, start=half, notes=["continues from a checkpoint"])
    assert progress.read() == []
    assert len(progress.running) == 1
    assert progress.seconds_left() is None
    wrote(0.75, start=half, notes=["continues from a checkpoint"])
    assert progress.read() == []
    assert progress.seconds_left() == pytest.approx(10 + REST_SECONDS)
    wrote(0.75, start=str(epochs * steps_per_epoch(spec) * 3 // 4))  # a worker died: its earlier work still counts
    progress.read()
    assert progress.gained() == pytest.approx(training_flops(spec) / 4)


def test_progress_never_rounds_up_to_100_percent(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    store.write_json(f"models/{spec.spec_id}/progress.json", {"epoch": 0.996 * spec.recipe.epochs})
    assert "(99%)" in TrainingProgress([spec], store).view()[1]


def test_measurement_flops_of_losses_are_those_of_the_loss_tables(digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    [task] = [task for task in tasks_for([spec], ["losses"]) if task.name == "losses"]
    context = Context(digits, Plan(), EvalConfig(train_images=60, test_images=50, draws=2))
    model = build_model(spec).requires_grad_(False)
    assert isinstance(model, Energy)
    y = torch.zeros(1, *digits.shape, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model.energy(y, torch.zeros(1, model.noise_dim)).sum().backward()  # Eq. 3: a forward pass, and a backward pass to y
    flops = measurement_flops([task], context, "fp32")
    assert flops == pytest.approx(2 * (60 + 50) * counter.get_total_flops())
    assert measurement_flops([task], context, "bf16") == FP32_COST * flops
    context = dataclasses.replace(context, plan=Plan(precision="bf16"))
    assert measurement_flops([task, task], context, "bf16") == 2 * flops  # two tasks, now both in bf16 like the trainings


@pytest.mark.parametrize(("minutes", "load", "told"), [(2, 7.0, True), (2, 5.0, False), (0, 7.0, False)])
def test_progress_tells_why_workers_start_slowly(
    minutes: int, load: float, told: bool, store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.study.progress.usable_cpus", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    progress = TrainingProgress([tiny_spec(digits)], store)
    progress.began -= timedelta(minutes=minutes)
    assert progress.view()[1].endswith("; other programs keep this machine busy") == told


def test_progress_ignores_what_a_worker_of_a_killed_session_still_writes(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)

    def wrote(starts: int, epoch: float) -> None:
        now = {"epoch": epoch, "starts": starts, "start": "fresh", "notes": [f"start {starts}"], "time": time.time()}
        store.write_json(f"models/{spec.spec_id}/progress.json", now)

    wrote(2, 0.1)
    progress = TrainingProgress([spec], store)
    wrote(2, 0.2)
    assert progress.read() == []
    wrote(3, 0.2)
    assert progress.read() == ["start 3"]
