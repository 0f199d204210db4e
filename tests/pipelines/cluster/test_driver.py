"""What a search's trial leaves behind when Tune stops it, without a Ray cluster."""

from types import SimpleNamespace

from pipelines.cluster.driver import StoppedEarly
from pipelines.executor.outcomes import outcome
from pipelines.executor.training import Training
from pipelines.files.store import Store
from pipelines.study.config import StudyConfig
from pipelines.study.running import Running
from pipelines.study.stages import prepare
from tests.support.builders import tiny_spec
from tests.support.one_training import PLAN, train
from uvb.data import ImageSet


def test_stopped_early_marks_models_that_another_command_trains(store: Store, digits: ImageSet) -> None:
    specs = [tiny_spec(digits, seed=seed) for seed in range(3)]
    train(specs[0], store)
    trial = SimpleNamespace(config={"group": 0})
    stopping = StoppedEarly(store, [[spec.spec_id for spec in specs[:2]]])
    trial.last_result = {"outcome": "failed"}  # and could not write so
    stopping.on_trial_complete(1, [], trial)
    assert outcome(store, specs[1].spec_id) is None
    trial.last_result = {"epoch": 1, "loss": 2.0}
    stopping.on_trial_complete(1, [], trial)
    ends = ["done", "stopped", None]
    study = Running(digits, specs, store)
    for searching in (True, False):
        prepare(study, StudyConfig(), searching)
        assert [outcome(store, spec.spec_id) for spec in specs] == ends
        ends = ["done", None, None]
    assert Training(specs[1], PLAN, store, 1e9, 0).run()["outcome"] == "done"
