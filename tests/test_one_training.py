"""One training's life on a worker, and the tasks after it, without a Ray cluster."""

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import torch
from conftest import tiny_spec
from torch.utils.flop_counter import FlopCounterMode

from pipelines import study as study_module
from pipelines.config import StudyConfig, chosen_experiments
from pipelines.cost_model import training_flops
from pipelines.estimate import FP32_COST, MEASUREMENT_SHARE, measurement_flops
from pipelines.images import images_path, load_images, save_images
from pipelines.progress import REST_SECONDS, TASK_SECONDS, Screen, TrainingProgress, clock
from pipelines.resources import Capacity, Layout
from pipelines.store import Store
from pipelines.study import Study, measure_stage, plan_stage, prepare
from pipelines.tasks import Settings, Task, run_task, tasks_for, unfinished
from pipelines.training import KEPT_STATES, STUCK_LIMIT, StoppedEarly, Training, outcome
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.estimator import Energy
from uvb.evaluate import EvalConfig
from uvb.experiments import Result, get_experiment
from uvb.load import load
from uvb.models import build_model
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.train import Progress, fit
from uvb.train_state import TrainState, steps_per_epoch

PLAN = Plan(precision="fp64")


@pytest.fixture
def store(tmp_path: Path, digits: ImageSet) -> Store:
    """A study's folder with the images in it."""
    store = Store(tmp_path / "study")
    save_images(store, digits)
    return store


class Killed(Exception):
    """Stands for a SIGKILL at that point."""


class Interrupted(Training):
    """Saves at every yield, and dies after so many."""

    def __init__(self, spec: RunSpec, store: Store, pulses: int) -> None:
        super().__init__(spec, PLAN, store, 1e-9, 0)
        self.left = pulses

    def _pulse(self, progress: Progress, state: TrainState) -> None:
        super()._pulse(progress, state)
        self.left -= 1
        if not self.left:
            raise Killed


def train(spec: RunSpec, store: Store) -> Training:
    training = Training(spec, PLAN, store, 1e9, 0)
    assert training.run()["outcome"] == "done"
    return training


def folder_of(store: Store, spec: RunSpec) -> Path:
    assert store.local_path
    return store.local_path / "models" / spec.spec_id


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "model").state_dict()


def test_images_travel_through_the_store_and_are_mended(store: Store, digits: ImageSet) -> None:
    assert load_images(store.uri, digits.checksum).checksum == digits.checksum
    assert store.local_path
    path = store.local_path / images_path(digits.checksum)
    path.write_bytes(path.read_bytes()[:-100])
    load_images.cache_clear()
    with pytest.raises(UserError, match="damaged"):
        load_images(store.uri, digits.checksum)
    save_images(store, digits)
    assert load_images(store.uri, digits.checksum).checksum == digits.checksum


def test_killed_training_ends_bit_identical(store: Store, tmp_path: Path, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    with pytest.raises(Killed):
        Interrupted(spec, store, 1).run()
    assert not (folder_of(store, spec) / "done.json").exists()
    resumed = train(spec, store)
    assert resumed.history["starts"] == 2
    assert any("going on from step" in note for note in resumed.notes)

    whole = Store(tmp_path / "whole")
    save_images(whole, digits)
    train(spec, whole)
    a, b = weights(folder_of(store, spec)), weights(folder_of(whole, spec))
    assert all(torch.equal(a[name], b[name]) for name in b)
    rows = [json.loads((folder_of(s, spec) / "curves.json").read_text())["rows"] for s in (store, whole)]
    assert [[r[k] for k in ("epoch", "train_loss", "test_loss", "kl")] for r in rows[0]] == [
        [r[k] for k in ("epoch", "train_loss", "test_loss", "kl")] for r in rows[1]
    ]
    assert [r["epoch"] for r in rows[0]] == [1, 2]
    done = json.loads((folder_of(store, spec) / "done.json").read_text())
    assert (done["restarts"], done["epochs"]) == (1, 2)
    assert not (folder_of(store, spec) / "state").exists()

    (folder_of(store, spec) / "state" / "000000004").mkdir(parents=True)  # killed between done.json and their removal
    train(spec, store)
    assert not (folder_of(store, spec) / "state").exists()


def test_the_model_that_is_kept_is_the_averaged_one(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    state = TrainState.fresh(spec, PLAN)
    list(fit(spec, PLAN, state, digits))
    kept = weights(folder_of(store, spec))
    assert all(torch.equal(kept[name], value) for name, value in state.averaged.state_dict().items())
    assert any(not torch.equal(kept[name], value) for name, value in state.model.state_dict().items())


def test_a_half_trained_model_keeps_its_plan_unless_told_otherwise(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, model) for model in ("uvb", "deen")]
    layout, has = Layout(2, 1, 0.99, 0.0), Capacity(2, 0, ((2, 0),), cluster=False)
    kept, new = Plan(workers=1, precision="fp64"), Plan(workers=2, precision="fp32")
    store.write_json(f"models/{specs[0].spec_id}/plan.json", kept.to_json())
    for replan, expected in ((False, kept), (True, new)):
        study = Study(StudyConfig(precision="fp32", replan=replan), digits, specs, store, Screen())
        groups = plan_stage(study, layout, has)
        assert {s.model: group.plan for group in groups for s in group.specs} == {"uvb": expected, "deen": new}
        stored = [Plan(**store.read_json(f"models/{s.spec_id}/plan.json")) for s in specs]
        assert stored == [expected, new]


def test_a_model_whose_code_has_changed_since_is_told(store: Store, digits: ImageSet, monkeypatch, capsys) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    study = Study(StudyConfig(), digits, [spec], store, Screen())
    layout, has = Layout(2, 1, 0.99, 0.0), Capacity(2, 0, ((2, 0),), cluster=False)
    assert plan_stage(study, layout, has) == []
    assert "has changed" not in capsys.readouterr().out
    monkeypatch.setattr(study_module, "code_changed", lambda model, before: True)
    assert plan_stage(study, layout, has) == []
    assert "the code of uvb has changed since it was trained" in capsys.readouterr().out
    reference, _ = tasks_for([spec], ["losses"])
    run_task(reference, store, Settings(study.config.evaluation, Plan()))
    measure_stage(study, ["losses"], layout)
    assert study.failures == [
        "uvb is not measured: its code has changed since it was trained; take that back, or choose another --study"
    ]
    assert not store.exists("tasks/losses")


def test_finished_training_is_left_alone(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    before = store.stamps(f"models/{spec.spec_id}")
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "done"
    assert store.stamps(f"models/{spec.spec_id}") == before


def test_states_are_few_and_the_newest_whole_one_is_used(store: Store, tmp_path: Path, digits: ImageSet) -> None:
    spec = dataclasses.replace(tiny_spec(digits), recipe=dataclasses.replace(tiny_spec(digits).recipe, epochs=5))
    with pytest.raises(Killed):
        Interrupted(spec, store, 4).run()
    states = sorted((folder_of(store, spec) / "state").iterdir())
    assert len(states) == KEPT_STATES
    damaged = states[-1] / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    resumed = train(spec, store)
    assert resumed.history["start"] == states[-2].name
    assert any(states[-1].name in note and "not used" in note for note in resumed.notes)

    whole = Store(tmp_path / "whole")
    save_images(whole, digits)
    train(spec, whole)
    a, b = weights(folder_of(store, spec)), weights(folder_of(whole, spec))
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_what_is_saved_after_damaged_checkpoints_is_kept_rather_than_these(store: Store, digits: ImageSet) -> None:
    """All are damaged, so it began anew: its first checkpoint is of an earlier step than theirs."""
    spec = dataclasses.replace(tiny_spec(digits), recipe=dataclasses.replace(tiny_spec(digits).recipe, epochs=5))
    with pytest.raises(Killed):
        Interrupted(spec, store, 4).run()
    folder = folder_of(store, spec) / "state"
    damaged = {state.name for state in folder.iterdir()}
    for name in damaged:
        (folder / name / "state.json").write_text("{")
    with pytest.raises(Killed):
        Interrupted(spec, store, 1).run()
    (kept,) = {state.name for state in folder.iterdir()} - damaged
    assert kept < min(damaged)
    assert train(spec, store).history["start"] == kept


def test_checkpoint_of_another_configuration_is_refused_by_name(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    other = dataclasses.replace(spec, sigma=0.5)
    with pytest.raises(Killed):
        Interrupted(other, store, 1).run()
    (folder_of(store, other) / "state").rename(folder_of(store, spec).parent / "moved")
    folder_of(store, spec).mkdir()
    (folder_of(store, spec).parent / "moved").rename(folder_of(store, spec) / "state")
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    assert "sigma: 0.5 != 1.0" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]


def test_a_store_that_fails_for_a_moment_is_no_damaged_checkpoint(digits: ImageSet, monkeypatch) -> None:
    """The worker dies, and the next one goes on from the checkpoint instead of beginning anew."""
    spec, store = tiny_spec(digits), Store(f"memory://{uuid4().hex}/study")
    save_images(store, digits)
    with pytest.raises(Killed):
        Interrupted(spec, store, 1).run()
    with monkeypatch.context() as away:
        away.setattr(TrainState, "load", lambda *_: (_ for _ in ()).throw(OSError("curl: 28")))
        with pytest.raises(OSError, match="curl"):
            Training(spec, PLAN, store, 1e9, 0).run()
    resumed = train(spec, store)
    assert int(resumed.history["start"]) > 0
    assert not any("not used" in note for note in resumed.notes)


def test_checkpoints_that_can_never_be_read_are_given_up_and_kept(store: Store, digits: ImageSet, monkeypatch) -> None:
    spec = tiny_spec(digits)
    with pytest.raises(Killed):
        Interrupted(spec, store, 1).run()
    before = store.stamps(f"models/{spec.spec_id}/state")
    monkeypatch.setattr(TrainState, "load", lambda *_: (_ for _ in ()).throw(PermissionError("not for you")))
    for _ in range(STUCK_LIMIT - 1):
        with pytest.raises(PermissionError):
            Training(spec, PLAN, store, 1e9, 0).run()
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    assert "cannot be read (not for you)" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    assert store.stamps(f"models/{spec.spec_id}/state") == before


def test_a_checkpoint_of_other_code_is_refused_by_what_differs(store: Store, digits: ImageSet, monkeypatch) -> None:
    spec = tiny_spec(digits)
    with pytest.raises(Killed):
        Interrupted(spec, store, 1).run()
    fresh = TrainState.fresh

    def with_a_layer_more(*args: object) -> TrainState:
        state = fresh(*args)
        state.model.more = torch.nn.Linear(1, 1)
        return state

    monkeypatch.setattr(TrainState, "fresh", with_a_layer_more)
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    error = json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    assert "other code of uvb (model/more.bias differs)" in error


def test_images_that_are_damaged_are_told_and_not_retried(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    assert store.local_path
    path = store.local_path / images_path(digits.checksum)
    path.write_bytes(path.read_bytes()[:-100])
    load_images.cache_clear()
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    assert "damaged" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    save_images(store, digits)
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"  # for this session
    prepare(Study(StudyConfig(), digits, [spec], store, Screen()))
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "done"


def test_diverging_training_fails_alone(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    wild = dataclasses.replace(spec.recipe, learning_rate=1e300, clip=float("inf"), warmup=0.0, schedule="constant")
    spec = dataclasses.replace(spec, recipe=wild)
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    assert "diverged" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    assert not (folder_of(store, spec) / "done.json").exists()


def test_training_that_always_dies_at_one_place_is_given_up(
    store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny_spec(digits)

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(TrainState, "fresh", die)
    for _ in range(STUCK_LIMIT):
        with pytest.raises(Killed):
            Training(spec, PLAN, store, 1e9, 0).run()
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"


def test_what_was_given_up_is_tried_again_by_the_same_command(
    store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory because another had it, say: once that is over, the next session begins to count anew."""
    spec, config = tiny_spec(digits), StudyConfig()
    with monkeypatch.context() as ill:
        ill.setattr(TrainState, "fresh", lambda *_: (_ for _ in ()).throw(Killed))
        for _ in range(STUCK_LIMIT):
            with pytest.raises(Killed):
                Training(spec, PLAN, store, 1e9, 0).run()
        assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "failed"
    prepare(Study(config, digits, [spec], store, Screen()))
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "done"


def test_what_a_search_stopped_is_said_at_once_and_trained_by_another_command(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, seed=seed) for seed in range(3)]
    train(specs[0], store)
    trial = SimpleNamespace(config={"group": {"specs": [spec.to_json() for spec in specs[:2]]}})
    trial.last_result = {"outcome": "failed"}  # and could not write so
    StoppedEarly(store).on_trial_complete(1, [], trial)
    assert outcome(store, specs[1].spec_id) is None
    trial.last_result = {"epoch": 1, "loss": 2.0}
    StoppedEarly(store).on_trial_complete(1, [], trial)
    ends = ["done", "stopped", None]
    study = Study(StudyConfig(), digits, specs, store, Screen())
    for searching in (True, False):
        prepare(study, searching)
        assert [outcome(store, spec.spec_id) for spec in specs] == ends
        ends = ["done", None, None]
    assert Training(specs[1], PLAN, store, 1e9, 0).run()["outcome"] == "done"


def test_interrupting_often_is_no_dying_at_one_place(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(digits)
    with monkeypatch.context() as ill:
        ill.setattr(TrainState, "fresh", lambda *_: (_ for _ in ()).throw(Killed))
        for _ in range(STUCK_LIMIT + 1):  # each in a session of its own
            prepare(Study(StudyConfig(), digits, [spec], store, Screen()))
            with pytest.raises(Killed):
                Training(spec, PLAN, store, 1e9, 0).run()
    assert Training(spec, PLAN, store, 1e9, 0).run()["outcome"] == "done"
    done = store.stamps(f"models/{spec.spec_id}")
    prepare(Study(StudyConfig(), digits, [spec], store, Screen()))
    assert store.stamps(f"models/{spec.spec_id}").items() <= done.items()


def test_a_store_that_does_not_answer_ends_no_study(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    progress = TrainingProgress([spec], store)
    with monkeypatch.context() as away:
        away.setattr(Store, "exists", lambda *_: (_ for _ in ()).throw(OSError("curl: 28")))
        assert progress.read() == []
        assert progress.finished == 0
    progress.read()
    assert progress.finished == 1


def test_full_disk_does_not_end_a_training(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(digits)

    def full(self: Training, state: TrainState) -> None:
        raise UserError("cannot write there: No space left on device; free some space there")

    monkeypatch.setattr(Training, "_save", full)
    training = Training(spec, PLAN, store, 1e-9, 0)
    assert training.run()["outcome"] == "done"
    assert any("No space left" in note for note in training.notes)


# ------------------------------------------------------------------------------------------------- tasks and progress

SETTINGS = Settings(EvalConfig(train_images=60, test_images=50, draws=2), Plan(), scale=0.02)


def test_tasks_are_those_that_apply(digits: ImageSet) -> None:
    specs = [tiny_spec(digits, m, sigma=s) for s in (0.5, 1.0) for m in ("uvb", "deen")]
    tasks = tasks_for(specs, ["losses", "internals"])
    assert sum(t.name == "reference" for t in tasks) == 2  # one a noise level
    assert sum(t.name == "losses" for t in tasks) == 4
    assert [t.spec.model for t in tasks if t.name == "internals"] == ["uvb", "uvb"]
    for task in tasks_for(specs, chosen_experiments(StudyConfig(experiments=("all",)))):
        if task.name != "reference" and get_experiment(task.name).where == "largest":
            assert task.spec.sigma == 1.0


def test_tasks_are_done_once_and_again_when_measured_otherwise(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    tasks = tasks_for([spec], ["losses"])
    assert unfinished(tasks, store, SETTINGS) == tasks
    for task in tasks:
        run_task(task, store, SETTINGS)
    assert unfinished(tasks, store, SETTINGS) == []
    assert unfinished(tasks, store, dataclasses.replace(SETTINGS, seed=1)) == tasks
    exact = store.read_json(f"{tasks[0].folder}/result.json")
    rows = store.read_json(f"{tasks[1].folder}/result.json")["rows"]
    ours = {(r["split"], r["estimator"]): r["loss"] for r in rows}
    assert exact["floor"] < ours["train", "energy"]  # nothing is below the floor
    assert exact["floor"] < exact["nonparametric"]


def test_a_model_trained_again_is_measured_again(store: Store, digits: ImageSet) -> None:
    """And the references, which are of no model, are not."""
    spec = tiny_spec(digits)
    train(spec, store)
    tasks = tasks_for([spec], ["losses"])
    for task in tasks:
        run_task(task, store, SETTINGS)
    store.remove(f"models/{spec.spec_id}")
    train(spec, store)
    assert [task.name for task in unfinished(tasks, store, SETTINGS)] == ["losses"]


def test_whatever_decides_a_number_has_it_measured_again() -> None:
    """And threads, which decide none, do not; nor does what shortens experiments, for those that are not shortened."""
    evaluations = [EvalConfig(60, 50, 3), EvalConfig(60, 50, 2, seed=1), EvalConfig(0, 50, 2), EvalConfig(60, 0, 2)]
    others = [dataclasses.replace(SETTINGS, evaluation=each) for each in evaluations]
    others += [dataclasses.replace(SETTINGS, plan=plan) for plan in (Plan(precision="bf16"), Plan(device="cuda"))]
    others += [dataclasses.replace(SETTINGS, seed=1), dataclasses.replace(SETTINGS, scale=0.5)]
    assert len({each.key("walk_jump") for each in (SETTINGS, *others)}) == 1 + len(others)
    for name in ("losses", "internals", "reference"):
        assert len({each.key(name) for each in (SETTINGS, *others)}) == len(others)
    assert dataclasses.replace(SETTINGS, plan=Plan(threads=7)).key("walk_jump") == SETTINGS.key("walk_jump")


def test_nan_is_not_written(store: Store, digits: ImageSet) -> None:
    from pipelines.tasks import write_result

    task = Task("losses", "x", tiny_spec(digits))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(store, task, Result({"loss": float("nan")}), SETTINGS)
    assert unfinished([task], store, SETTINGS) == [task]


def test_progress_counts_work_and_tells_each_line_once(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, "uvb"), tiny_spec(digits, "deen")]
    progress = TrainingProgress(specs, store, tasks=3)
    assert progress.read() == []
    assert progress.work()[0] == 0
    train(specs[0], store)
    store.write_json(f"models/{specs[1].spec_id}/failed.json", {"error": "deen went wrong"})
    assert progress.read() == ["failed: deen went wrong"]
    assert progress.read() == []
    assert progress.finished == 2
    assert progress.work()[0] == progress.work()[1] == sum(map(training_flops, specs))
    assert [clock(s) for s in (5, 65, 3700)] == ["5 s", "1 min 5 s", "1 h 1 min"]


def test_time_left_counts_the_measurements(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the work in 10 s leaves 10 s of it, and 20 s where as much again comes after; or what was timed comes after."""
    spec = tiny_spec(digits)
    work, clock_says = training_flops(spec), iter((100.0, 110.0, 110.0))
    monkeypatch.setattr("pipelines.progress.time", SimpleNamespace(monotonic=lambda: next(clock_says), time=time.time))
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


def test_what_an_earlier_session_left_is_neither_running_nor_its_pace(
    store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at three quarters, with a checkpoint at the half: the first quarter of this session takes its 10 s again."""
    spec = tiny_spec(digits)
    epochs, clock_says = spec.recipe.epochs, iter((100.0, 110.0))
    monkeypatch.setattr("pipelines.progress.time", SimpleNamespace(monotonic=lambda: next(clock_says), time=time.time))

    def wrote(share: float, **more: object) -> None:
        now = {"epoch": share * epochs, "images_per_s": 1.0, "time": time.time(), **more}
        store.write_json(f"models/{spec.spec_id}/progress.json", now)

    wrote(0.75, start="fresh", notes=["of the session before"])
    progress = TrainingProgress([spec], store)
    assert progress.read() == []
    assert progress.running == []
    assert "starting workers" in progress.view()[1]
    half = str(epochs * steps_per_epoch(spec) // 2)
    wrote(0.75, start=half, notes=["going on"], images_per_s=None)  # as `Training` takes it up
    assert progress.read() == ["going on"]
    assert progress.running == []
    assert progress.gained() == 0
    wrote(0.5, start=half, notes=["going on"])
    assert progress.read() == []
    assert len(progress.running) == 1
    assert progress.seconds_left() is None
    wrote(0.75, start=half, notes=["going on"])
    assert progress.read() == []
    assert progress.seconds_left() == pytest.approx(10 + REST_SECONDS)
    wrote(0.75, start=str(epochs * steps_per_epoch(spec) * 3 // 4))  # a worker died: what was done before it still counts
    progress.read()
    assert progress.gained() == pytest.approx(training_flops(spec) / 4)


def test_the_share_done_is_never_rounded_to_all(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    store.write_json(f"models/{spec.spec_id}/progress.json", {"epoch": 0.996 * spec.recipe.epochs})
    assert "(99%)" in TrainingProgress([spec], store).view()[1]


def test_measurements_are_counted_as_the_loss_tables_make_them(digits: ImageSet) -> None:
    spec, config = tiny_spec(digits), EvalConfig(train_images=60, test_images=50, draws=2)
    model = build_model(spec).requires_grad_(False)
    assert isinstance(model, Energy)
    y = torch.zeros(1, *digits.shape, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model.energy(y, torch.zeros(1, model.noise_dim)).sum().backward()  # Eq. 3: forward, and back to y
    alike = measurement_flops([spec], "fp32", "fp32", digits, config)
    assert alike == pytest.approx(MEASUREMENT_SHARE * 2 * (60 + 50) * counter.get_total_flops())
    assert measurement_flops([spec], "fp32", "bf16", digits, config) == FP32_COST * alike
    assert measurement_flops([spec, spec], "bf16", "bf16", digits, config) == 2 * alike
