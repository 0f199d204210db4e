"""The checkpoints of a training: which of them are used, refused and kept."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import Mock
from uuid import uuid4

import pytest
import torch

from pipelines.executor.training import KEPT_STATES, STUCK_LIMIT
from pipelines.files.store import Store
from pipelines.study.images import save_images
from tests.support.builders import tiny_spec
from tests.support.one_training import Killed, attempt, folder_of, interrupt, require_same_weights, train
from uvb.data import ImageSet
from uvb.training.state import TrainState


def test_checkpoints_are_few_and_the_newest_whole_one_is_used(store: Store, tmp_path: Path, digits: ImageSet) -> None:
    spec = dataclasses.replace(tiny_spec(digits), recipe=dataclasses.replace(tiny_spec(digits).recipe, epochs=5))
    interrupt(spec, store, pulses=4)
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
    require_same_weights(spec, store, whole)


def test_checkpoint_saved_after_damaged_ones_is_kept(store: Store, digits: ImageSet) -> None:
    """All old checkpoints are damaged, so the training began anew. Its first checkpoint has a smaller step than theirs."""
    spec = dataclasses.replace(tiny_spec(digits), recipe=dataclasses.replace(tiny_spec(digits).recipe, epochs=5))
    interrupt(spec, store, pulses=4)
    folder = folder_of(store, spec) / "state"
    damaged = {state.name for state in folder.iterdir()}
    for name in damaged:
        (folder / name / "state.json").write_text("{")
    interrupt(spec, store)
    (kept,) = {state.name for state in folder.iterdir()} - damaged
    assert kept < min(damaged)
    assert train(spec, store).history["start"] == kept


def test_checkpoint_of_another_configuration_is_refused_by_name(store: Store, digits: ImageSet) -> None:
    spec = tiny_spec(digits)
    other = dataclasses.replace(spec, sigma=0.5)
    interrupt(other, store)
    folder_of(store, spec).mkdir()
    (folder_of(store, other) / "state").rename(folder_of(store, spec) / "state")
    assert attempt(spec, store) == "failed"
    assert "sigma: 0.5 != 1.0" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]


def test_checkpoint_is_used_after_the_store_failed_for_a_moment(digits: ImageSet, monkeypatch) -> None:
    """The worker dies. The next worker continues from the checkpoint, and does not begin anew."""
    spec, store = tiny_spec(digits), Store(f"memory://{uuid4().hex}/study")
    save_images(store, digits)
    interrupt(spec, store)
    with monkeypatch.context() as away:
        away.setattr(TrainState, "load", Mock(side_effect=OSError("curl: 28")))
        with pytest.raises(OSError, match="curl"):
            attempt(spec, store)
    resumed = train(spec, store)
    assert int(resumed.history["start"]) > 0
    assert not any("not used" in note for note in resumed.notes)


def test_checkpoints_that_stay_unreadable_fail_the_model_and_are_kept(store: Store, digits: ImageSet, monkeypatch) -> None:
    spec = tiny_spec(digits)
    interrupt(spec, store)
    before = store.stamps(f"models/{spec.spec_id}/state")
    monkeypatch.setattr(TrainState, "load", Mock(side_effect=PermissionError("not for you")))
    for _ in range(STUCK_LIMIT - 1):
        with pytest.raises(PermissionError):
            attempt(spec, store)
    assert attempt(spec, store) == "failed"
    assert "cannot be read (not for you)" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    assert store.stamps(f"models/{spec.spec_id}/state") == before


def test_checkpoint_of_other_code_is_refused_with_the_difference(store: Store, digits: ImageSet, monkeypatch) -> None:
    spec = tiny_spec(digits)
    interrupt(spec, store)
    fresh = TrainState.fresh

    def with_a_layer_more(*args: object) -> TrainState:
        state = fresh(*args)
        state.model.more = torch.nn.Linear(1, 1)
        return state

    monkeypatch.setattr(TrainState, "fresh", with_a_layer_more)
    assert attempt(spec, store) == "failed"
    error = json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
    assert "the code of uvb has changed since" in error
    assert "(model/more.bias differs)" in error


def rewritten(folder: Path, **changes: object) -> None:
    """Change fields of a state.json without its hash, as a bad disk would. None removes a field."""
    path = folder / "state.json"
    blob = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in blob.items() if value is not None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 1},
        {"curves": [{"epoch": 0}], "json_sha256": None},
        {"curves": [[0, 1.0]], "json_sha256": None},
        {"curves": {}, "json_sha256": None},
        {"seconds": "long", "json_sha256": None},
        {"epoch": 0.5, "json_sha256": None},
        {"sha256": None, "json_sha256": None},
        {"format": 99, "json_sha256": None},
    ],
)
def test_checkpoint_with_wrong_content_is_skipped(store: Store, digits: ImageSet, changes: dict[str, object]) -> None:
    """The SHA-256 of the tensors is right. The hash of the JSON is wrong, or missing as in older versions."""
    spec = dataclasses.replace(tiny_spec(digits), recipe=dataclasses.replace(tiny_spec(digits).recipe, epochs=4))
    interrupt(spec, store, pulses=3)
    before, newest = sorted((folder_of(store, spec) / "state").iterdir())
    rewritten(newest, **changes)
    resumed = train(spec, store)
    assert resumed.history["start"] == before.name
    assert any(newest.name in note and "not used" in note for note in resumed.notes)


def test_checkpoint_without_a_hash_of_its_json_is_used(store: Store, digits: ImageSet) -> None:
    """Older versions wrote such checkpoints."""
    spec = tiny_spec(digits)
    interrupt(spec, store)
    (newest,) = (folder_of(store, spec) / "state").iterdir()
    rewritten(newest, json_sha256=None)
    assert train(spec, store).history["start"] == newest.name


def test_training_is_given_up_if_its_checkpoint_kills_workers(
    store: Store, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies before its first step also counts as stuck."""
    spec = tiny_spec(digits)
    interrupt(spec, store)
    monkeypatch.setattr(TrainState, "load", Mock(side_effect=Killed))
    for _ in range(STUCK_LIMIT):
        with pytest.raises(Killed):
            attempt(spec, store)
    assert attempt(spec, store) == "failed"
    assert "died" in json.loads((folder_of(store, spec) / "failed.json").read_text())["error"]
