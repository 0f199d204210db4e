"""A training in one process: how it ends, and what the study does after that."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from pipelines.cluster.layout import Capacity, Layout
from pipelines.executor.measuring import Settings, run_task, tasks_for
from pipelines.executor.outcomes import outcome
from pipelines.executor.training import STUCK_LIMIT, Training, lay_out
from pipelines.files.store import Store
from pipelines.study import stages
from pipelines.study.config import StudyConfig
from pipelines.study.images import images_path, load_images, save_images
from pipelines.study.running import Running
from pipelines.study.stages import measure, plan, prepare
from tests.support.builders import tiny_spec
from tests.support.one_training import NEVER, PLAN, Killed, attempt, folder_of, interrupt, require_same_weights, train, weights
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models.capacity import parameters
from uvb.plan import Plan
from uvb.training.loop import fit
from uvb.training.state import TrainState


def test_load_images_refuses_damage_that_save_images_mends(store: Store, digits: ImageSet) -> None:
    assert load_images(store.uri, digits.checksum).checksum == digits.checksum
    assert store.local_path
    path = store.local_path / images_path(digits.checksum)
    path.write_bytes(path.read_bytes()[:-100])
    load_images.cache_clear()
    with pytest.raises(UserError, match="damaged"):
        load_images(store.uri, digits.checksum)
    save_images(store, digits)
    assert load_images(store.uri, digits.checksum).checksum == digits.checksum


def test_training_that_was_killed_ends_bit_identical(store: Store, tmp_path: Path, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    interrupt(spec, store)
    assert not (folder_of(store, spec) / "done.json").exists()
    resumed = train(spec, store)
    assert resumed.history["starts"] == 2
    assert any("continues from step" in note for note in resumed.notes)

    whole = Store(tmp_path / "whole")
    save_images(whole, digits)
    train(spec, whole)
    require_same_weights(spec, store, whole)
    curves = [json.loads((folder_of(s, spec) / "curves.json").read_text())["rows"] for s in (store, whole)]
    resumed_rows, whole_rows = ([(r["epoch"], r["train_loss"], r["test_loss"], r["kl"]) for r in rows] for rows in curves)
    assert resumed_rows == whole_rows
    assert [epoch for epoch, *_ in resumed_rows] == [1, 2]
    done = json.loads((folder_of(store, spec) / "done.json").read_text())
    assert (done["restarts"], done["epochs"]) == (1, 2)
    assert not (folder_of(store, spec) / "state").exists()

    (folder_of(store, spec) / "state" / "000000004").mkdir(parents=True)  # as if killed right after done.json
    train(spec, store)
    assert not (folder_of(store, spec) / "state").exists()


def test_done_json_has_the_numbers_of_the_training(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    training = train(spec, store)
    done = json.loads((folder_of(store, spec) / "done.json").read_text())
    rows = json.loads((folder_of(store, spec) / "curves.json").read_text())["rows"]
    assert (done["epochs"], done["restarts"], done["seconds"]) == (2, 0, rows[-1]["seconds"])
    assert done["images_per_s"] == pytest.approx(100 * 2 / done["seconds"])  # tiny_spec has 100 images
    assert done["parameters"] == parameters(spec.model, spec.data.shape, spec.widths)
    assert training.history["starts"] == 1
    assert not (folder_of(store, spec) / "state").exists()


def test_training_keeps_the_averaged_model(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    state = TrainState.fresh(spec, PLAN)
    list(fit(spec, PLAN, state, digits))
    kept = weights(folder_of(store, spec))
    assert all(torch.equal(kept[name], value) for name, value in state.averaged.state_dict().items())
    assert any(not torch.equal(kept[name], value) for name, value in state.model.state_dict().items())


def test_plan_stage_keeps_a_half_trained_models_plan_unless_replanning(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, model) for model in ("uvb", "deen")]
    layout, has = Layout(2, 1, 0.99, 0.0), Capacity(2, 0, ((2, 0),), cluster=False)
    kept, new = Plan(workers=1, precision="fp64"), Plan(workers=2, precision="fp32", products=True)
    store.write_json(f"models/{specs[0].spec_id}/plan.json", kept.to_json())
    for replan, expected in ((False, kept), (True, new)):
        groups = plan(Running(digits, specs, store), StudyConfig(precision="fp32", replan=replan), layout, has)
        assert {s.model: group.plan for group in groups for s in group.specs} == {"uvb": expected, "deen": new}
        stored = [Plan(**store.read_json(f"models/{s.spec_id}/plan.json")) for s in specs]
        assert stored == [expected, new]


def test_study_warns_of_a_model_whose_code_has_changed(store: Store, digits: ImageSet, monkeypatch, capsys) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    study = Running(digits, [spec], store)
    layout, has = Layout(2, 1, 0.99, 0.0), Capacity(2, 0, ((2, 0),), cluster=False)
    assert plan(study, StudyConfig(), layout, has) == []
    assert "has changed" not in capsys.readouterr().out
    monkeypatch.setattr(stages, "code_changed", lambda model, before: True)
    assert plan(study, StudyConfig(), layout, has) == []
    assert "the code of uvb has changed since it was trained" in capsys.readouterr().out
    reference, _ = tasks_for([spec], ["losses"])
    run_task(reference, store, Settings(StudyConfig().evaluation, Plan()))
    measure(study, StudyConfig(), ["losses"], layout, "data")
    assert study.failures == [
        "uvb is not measured: its code has changed since training; revert the change, or choose another --study"
    ]
    assert not store.exists("tasks/losses")


def test_training_leaves_a_finished_model_alone(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    before = store.stamps(f"models/{spec.spec_id}")
    assert attempt(spec, store) == "done"
    assert store.stamps(f"models/{spec.spec_id}") == before


def test_training_fails_once_on_damaged_images(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    assert store.local_path
    path = store.local_path / images_path(digits.checksum)
    path.write_bytes(path.read_bytes()[:-100])
    load_images.cache_clear()
    assert attempt(spec, store) == "failed"
    assert "damaged" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    save_images(store, digits)
    assert attempt(spec, store) == "failed"  # this session does not try again
    prepare(Running(digits, [spec], store), StudyConfig())
    assert attempt(spec, store) == "done"


def test_training_that_diverges_fails(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    wild = dataclasses.replace(spec.recipe, learning_rate=1e300, clip=float("inf"), warmup=0.0, schedule="constant")
    spec = dataclasses.replace(spec, recipe=wild)
    assert attempt(spec, store) == "failed"
    assert "diverged" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    assert not (folder_of(store, spec) / "done.json").exists()


def test_training_that_always_dies_is_given_up_until_the_next_session(
    store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next session counts from zero, since the cause may be gone: another program used all memory, and has ended."""
    spec = tiny_spec(digits)
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "fresh", Mock(side_effect=Killed))
        for _ in range(STUCK_LIMIT):
            with pytest.raises(Killed):
                attempt(spec, store)
        assert attempt(spec, store) == "failed"
    prepare(Running(digits, [spec], store), StudyConfig())
    assert attempt(spec, store) == "done"


def test_training_interrupted_often_is_not_given_up(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(digits)
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "fresh", Mock(side_effect=Killed))
        for _ in range(STUCK_LIMIT + 1):  # each attempt is in a new session
            prepare(Running(digits, [spec], store), StudyConfig())
            with pytest.raises(Killed):
                attempt(spec, store)
    assert attempt(spec, store) == "done"
    done = store.stamps(f"models/{spec.spec_id}")
    prepare(Running(digits, [spec], store), StudyConfig())
    assert store.stamps(f"models/{spec.spec_id}") == done


def test_training_continues_when_the_disk_is_full(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    full = UserError("cannot write there: No space left on device; free some space there")
    monkeypatch.setattr(Training, "_save", Mock(side_effect=full))
    training = Training(tiny_spec(digits), PLAN, store, checkpoint_seconds=1e-9)
    assert training.run()["outcome"] == "done"
    assert any("No space left" in note for note in training.notes)


def test_training_that_was_paused_ends_bit_identical(store: Store, tmp_path: Path, digits: ImageSet) -> None:
    spec, whole = tiny_spec(digits), Store(tmp_path / "whole")
    paused = Training(spec, PLAN, store, NEVER, watch=lambda progress: progress.metrics is not None)
    assert paused.run()["outcome"] == "paused"
    assert outcome(store, spec.spec_id) is None
    assert len(store.list(f"models/{spec.spec_id}/state")) == 1
    assert len(json.loads((folder_of(store, spec) / "curves.json").read_text())["rows"]) == 1
    assert train(spec, store).history["starts"] == 2

    lay_out(whole, digits, {spec: PLAN})
    train(spec, whole)
    require_same_weights(spec, store, whole)


def test_training_reports_on_the_epochs_asked_for(store: Store, digits: ImageSet) -> None:
    """The training does not report the last epoch, because `run` returns that epoch's loss."""
    spec, heard = tiny_spec(digits), []
    spec = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, epochs=5))
    ended = Training(spec, PLAN, store, NEVER, report_epochs=2, report=heard.append).run()
    assert [each["epoch"] for each in heard] == [2, 4]
    assert (ended["outcome"], ended["epoch"]) == ("done", 5)
