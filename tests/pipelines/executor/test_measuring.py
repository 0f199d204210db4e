"""The measurements of trained models: which of them a study makes, and when it repeats them."""

import dataclasses
import math
from pathlib import Path

import pytest

from pipelines.executor import measuring
from pipelines.executor.measuring import Settings, Task, run_here, run_task, tasks_for, unfinished, write_result
from pipelines.files.store import Store
from pipelines.files.study_files import StudyFiles
from pipelines.reporting.facts import undefined
from pipelines.reporting.tables import build_tables
from pipelines.study.config import StudyConfig
from pipelines.study.specs import chosen_experiments
from tests.support.builders import tiny_spec
from tests.support.one_training import train
from uvb.data import ImageSet
from uvb.experiments import Result, get_experiment
from uvb.measure.losses import EvalConfig
from uvb.plan import Plan

SETTINGS = Settings(EvalConfig(train_images=60, test_images=50, draws=2), Plan(), scale=0.02)


def test_tasks_for_lists_what_applies(digits: ImageSet) -> None:
    specs = [tiny_spec(digits, m, sigma=s) for s in (0.5, 1.0) for m in ("uvb", "deen")]
    tasks = tasks_for(specs, ["losses", "internals"])
    names = [task.name for task in tasks]
    assert names.count("reference") == 2  # one for each noise level
    assert names.count("losses") == 4
    assert [task.spec.model for task in tasks if task.name == "internals"] == ["uvb", "uvb"]
    for task in tasks_for(specs, chosen_experiments(StudyConfig(experiments=("all",)))):
        if task.name != "reference" and get_experiment(task.name).where == "largest":
            assert task.spec.sigma == 1.0


def test_unfinished_repeats_what_was_measured_with_other_settings(store: Store, digits: ImageSet) -> None:
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
    assert exact["floor"] < ours["train", "energy"]  # no estimator is below the floor
    assert exact["floor"] < exact["nonparametric"]


def test_unfinished_repeats_models_trained_again(store: Store, digits: ImageSet) -> None:
    """References belong to no model, so they are not repeated."""
    spec = tiny_spec(digits)
    train(spec, store)
    tasks = tasks_for([spec], ["losses"])
    for task in tasks:
        run_task(task, store, SETTINGS)
    store.remove(f"models/{spec.spec_id}")
    train(spec, store)
    assert [task.name for task in unfinished(tasks, store, SETTINGS)] == ["losses"]


def test_settings_key_changes_with_every_setting_that_changes_a_number() -> None:
    """Threads change no number. The scale changes only the numbers of experiments that it shortens."""
    evaluations = [EvalConfig(60, 50, 3), EvalConfig(60, 50, 2, seed=1), EvalConfig(0, 50, 2), EvalConfig(60, 0, 2)]
    others = [dataclasses.replace(SETTINGS, evaluation=each) for each in evaluations]
    others += [dataclasses.replace(SETTINGS, plan=plan) for plan in (Plan(precision="bf16"), Plan(device="cuda"))]
    others += [dataclasses.replace(SETTINGS, seed=1), dataclasses.replace(SETTINGS, scale=0.5)]
    assert len({each.key("walk_jump") for each in (SETTINGS, *others)}) == 1 + len(others)
    for name in ("losses", "internals", "reference"):
        assert len({each.key(name) for each in (SETTINGS, *others)}) == len(others)
    assert dataclasses.replace(SETTINGS, plan=Plan(threads=7)).key("walk_jump") == SETTINGS.key("walk_jump")


def test_write_result_writes_null_for_a_number_that_does_not_exist(tmp_path: Path, digits: ImageSet) -> None:
    """Readers get NaN for null, and the report names the missing numbers in one line."""
    store, spec = Store(tmp_path), tiny_spec(digits)
    for name, blob in (("spec", spec.to_json()), ("done", {"seconds": 1.0, "time": 2.0})):
        store.write_json(f"models/{spec.spec_id}/{name}.json", blob)
    rows = [{"split": "test", "estimator": "energy", "loss": 3.0, "stderr": math.nan, "low": [1.0, math.inf]}]
    write_result(store, Task("losses", spec.spec_id, spec), Result({"rows": rows, "name": None}), SETTINGS, trained_at=2.0)
    stored = store.read_json(f"tasks/losses/{spec.spec_id}/result.json")
    assert stored["rows"] == [rows[0] | {"stderr": None, "low": [1.0, None]}]
    assert stored["undefined"] == [["rows", 0, "stderr"], ["rows", 0, "low", 1]]
    files = StudyFiles(tmp_path)
    [(_, result)] = files.of_models("losses")
    assert math.isnan(result.values["rows"][0]["stderr"])
    assert result.values["name"] is None
    assert undefined(files) == ["“losses” of uvb σ=1: low, stderr cannot be computed."]
    assert math.isnan(build_tables(tmp_path)["losses"]["stderr"].item())


def test_run_here_keeps_a_failure_and_goes_on(store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_spec(digits)
    train(spec, store)
    tasks = tasks_for([spec], ["internals", "losses"])
    assert [task.name for task in tasks] == ["reference", "internals", "losses"]
    store.write_json(f"{tasks[0].folder}/started.json", {})  # as if the process was killed during the task
    real = measuring.get_experiment
    broken = dataclasses.replace(real("internals"), run=lambda *_: 1 / 0)
    monkeypatch.setattr(measuring, "get_experiment", lambda name: broken if name == "internals" else real(name))
    assert list(run_here(tasks, store, SETTINGS, left=lambda: -1.0)) == []
    found = {task.name: error for task, error in run_here(tasks, store, SETTINGS)}
    assert found == {
        "reference": "the process ended during this task",
        "internals": "ZeroDivisionError: division by zero",
        "losses": "",
    }
    assert store.read_json(f"{tasks[1].folder}/failed.json")["error"] == found["internals"]
    assert [task.name for task in unfinished(tasks, store, SETTINGS)] == ["reference", "internals"]
    assert list(run_here(tasks[:2], store, SETTINGS)) == []  # failed tasks are not tried again
    assert not store.exists(f"{tasks[2].folder}/started.json")
