"""Real faults: a full disk, and requests for more workers, CPUs or GPUs than there are."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.executor.training import Training
from pipelines.files.store import Store
from pipelines.study.images import save_images
from tests.support.builders import ROOT, tiny_spec
from tests.support.one_training import PLAN, folder_of, require_same_weights, train
from tests.support.small_disk import CannotMount, SmallDisk
from uvb.data import ImageSet
from uvb.training.state import TrainState


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        disk = SmallDisk(tmp_path / "disk", megabytes=4)
    except CannotMount as error:
        pytest.skip(str(error))  # only root can mount a small disk
    yield disk
    disk.remove()


def test_full_disk_loses_nothing(small_disk: SmallDisk, tmp_path: Path, digits: ImageSet) -> None:
    """The disk fills up in mid-training. The training goes on without checkpoints, and fails because it cannot write the model.

    After space is freed, a second run continues the training, and ends with the weights of an undisturbed training.
    """
    spec = tiny_spec(digits)
    spec = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, epochs=6))
    store, calm = Store(small_disk.path / "study"), Store(tmp_path / "calm")
    for each in (store, calm):
        save_images(each, digits)

    fillers: list[Path] = []

    class UntilFull(Training):
        saves = 0

        def _save(self, state: TrainState) -> None:
            if self.saves == 2:
                fillers.append(small_disk.fill())
            self.saves += 1
            super()._save(state)

    first = UntilFull(spec, PLAN, store, checkpoint_seconds=1e-9, report_epochs=0)
    assert first.run()["outcome"] == "failed"
    assert first.saves > 3, "the disk is full at the third save, and the training goes on"
    notes = [note for note in first.notes if "No space left on device" in note]
    assert notes
    assert all("free some space there" in note for note in notes)
    folder = folder_of(store, spec)
    assert not (folder / "done.json").exists()
    kept = {path.name for path in (folder / "state").iterdir() if not path.name.startswith(".")}
    assert kept

    (filler,) = fillers
    filler.unlink()
    store.sweep()
    second = train(spec, store)
    assert any(re.search(r"continues from step [1-9]", note) for note in second.notes)
    train(spec, calm)
    require_same_weights(spec, store, calm)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--num-workers", "5000"], r"asked for 5,000 workers of 1 CPU each, but this machine has \d+ CPUs?"),
        (
            ["--cpus-per-worker", "5000"],
            r"asked for \d workers? of 5000 CPUs each, but this machine has \d+ CPUs?.*the most on one node",
        ),
        (["--concurrent-trials", "5000", "--cpus-per-worker", "1"], r"asked for 5000 trials at a time.*this machine has"),
        (["--use-gpu", "--gpus-per-worker", "500"], r"asked for .*GPU|you gave --use-gpu, but this machine has"),
    ],
)
def test_impossible_requests_end_within_seconds(tmp_path: Path, wrong: list[str], said: str) -> None:
    command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), "--address", "local", *wrong]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert re.search(said, done.stderr)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
