"""The driver's callbacks for workers that die early, and for trials that a search stops. No Ray cluster runs."""

from types import SimpleNamespace

import pytest

from pipelines.cluster.driver import EarlyDeaths, StoppedEarly
from pipelines.executor.outcomes import outcome
from pipelines.executor.training import STUCK_LIMIT
from pipelines.files.store import Store
from pipelines.study.config import StudyConfig
from pipelines.study.running import Running
from pipelines.study.stages import prepare
from tests.support.builders import tiny_spec
from tests.support.one_training import attempt, train
from uvb.data import ImageSet


def test_stopped_models_stay_stopped_only_in_searches(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, seed=seed) for seed in range(3)]
    train(specs[0], store)
    trial = SimpleNamespace(config={"group": 0})
    stopping = StoppedEarly(store, [[spec.spec_id for spec in specs[:2]]])
    trial.last_result = {"outcome": "failed"}  # the trial could not write failed.json
    stopping.on_trial_complete(1, [], trial)
    assert outcome(store, specs[1].spec_id) is None
    trial.last_result = {"epoch": 1, "loss": 2.0}
    stopping.on_trial_complete(1, [], trial)
    study = Running(digits, specs, store)
    for searching, end in ((True, "stopped"), (False, None)):
        prepare(study, StudyConfig(), searching)
        assert [outcome(store, spec.spec_id) for spec in specs] == ["done", end, None]
    assert attempt(specs[1], store) == "done"


def test_early_deaths_give_up_a_group_in_one_line(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, seed=seed) for seed in range(3)]
    train(specs[0], store)
    blobs, error = [spec.to_json() for spec in specs], RuntimeError("no module\nnamed plugin")
    first = EarlyDeaths(store.uri, blobs)
    for _ in range(STUCK_LIMIT - 2):
        first.after_exception(None, {0: error})
    again = EarlyDeaths(store.uri, blobs)  # Tune has started the trial again
    again.after_exception(None, {0: error})
    assert outcome(store, specs[1].spec_id) is None
    with pytest.raises(RuntimeError, match="died"):
        again.after_exception(None, {0: error})
    assert again.unfinished == []
    assert [outcome(store, spec.spec_id) for spec in specs] == ["done", "failed", "failed"]
    line = store.read_json(f"models/{specs[2].spec_id}/failed.json")["error"]
    assert line.startswith(f"{specs[2].label}: its workers died {STUCK_LIMIT} times before training began")
    assert "named plugin" in line
    assert "\n" not in line
    prepare(Running(digits, specs, store), StudyConfig())  # the next command counts from zero
    assert EarlyDeaths(store.uri, blobs).seen.get("stuck", 0) == 0


def test_early_deaths_ignore_workers_that_had_begun_to_train(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    deaths = EarlyDeaths(store.uri, [spec.to_json()])
    for step in range(2 * STUCK_LIMIT):  # each worker wrote its progress before it died
        store.write_json(f"models/{spec.spec_id}/progress.json", {"start": f"{step:09d}", "stuck": 0})
        deaths.after_exception(None, {0: RuntimeError("killed")})
    assert outcome(store, spec.spec_id) is None
