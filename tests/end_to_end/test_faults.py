"""Faults made for real: a disk that is full, requests that cannot be met."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.executor.training import Training
from pipelines.files.store import Store
from pipelines.study.images import save_images
from tests.support.builders import ROOT, tiny_spec
from uvb.data import ImageSet
from uvb.models.io import load
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.state import TrainState

PLAN = Plan(precision="fp64")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here ({mounted.stderr.strip()})")  # it takes root
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def trained(store: Store, spec: RunSpec) -> dict[str, torch.Tensor]:
    assert store.local_path is not None
    return load(store.local_path / "models" / spec.spec_id / "model", "cpu").state_dict()


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    path = disk / "filler"
    with open(path, "wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    assert os.statvfs(disk).f_bavail == 0
    return path


def test_full_disk_loses_nothing(small_disk: Path, tmp_path: Path, digits: ImageSet) -> None:
    """The disk fills up in mid-training; training goes on, says why nothing is saved, and later ends as if nothing had been."""
    spec = tiny_spec(digits)
    spec = dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, epochs=6))
    store, calm = Store(small_disk / "study"), Store(tmp_path / "calm")
    for each in (store, calm):
        save_images(each, digits)

    class UntilFull(Training):
        saves = 0

        def _save(self, state: TrainState) -> None:
            if self.saves == 2:
                fill(small_disk)
            self.saves += 1
            super()._save(state)

    first = UntilFull(spec, PLAN, store, 1e-9, 0)
    assert first.run()["outcome"] == "failed"
    assert first.saves > 1 + 2, "training went on"
    notes = [note for note in first.notes if "No space left on device" in note]
    assert notes
    assert all("free some space there" in note for note in notes)
    folder = small_disk / "study" / "models" / spec.spec_id
    assert not (folder / "done.json").exists()
    kept = {path.name for path in (folder / "state").iterdir() if not path.name.startswith(".")}
    assert kept

    (small_disk / "filler").unlink()
    store.sweep()
    second = Training(spec, PLAN, store, 1e9, 0)
    assert second.run()["outcome"] == "done"
    assert any(re.search(r"going on from step [1-9]", note) for note in second.notes)
    Training(spec, PLAN, calm, 1e9, 0).run()
    wanted = trained(calm, spec)
    assert all(torch.equal(value, wanted[name]) for name, value in trained(store, spec).items())


# --------------------------------------------------------------------------------------------------- under Ray, whole


@pytest.mark.slow  # each is a process of its own
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--num-workers", "5000"], r"asked for 5000 workers of 1 CPU each, and this machine has \d+ CPUs?"),
        (
            ["--cpus-per-worker", "5000"],
            r"asked for \d workers? of 5000 CPUs each, and this machine has \d+ CPUs?.*one node has",
        ),
        (["--concurrent-trials", "5000", "--cpus-per-worker", "1"], r"asked for 5000 trials at a time.*this machine has"),
        (["--use-gpu", "--gpus-per-worker", "500"], r"asked for .*GPU|--use-gpu, and this machine has"),
    ],
)
def test_impossible_requests_end_within_seconds(tmp_path: Path, wrong: list[str], said: str) -> None:
    command = [sys.executable, str(ROOT / "pipelines" / "full_study.py"), "--address", "local", *wrong]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert re.search(said, done.stderr)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
