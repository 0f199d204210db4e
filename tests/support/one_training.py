"""Trainings that a test can run and interrupt in its own process."""

from pathlib import Path

import pytest
import torch

from pipelines.executor.training import Training
from pipelines.files.store import Store
from uvb.models.io import load
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.loop import Progress
from uvb.training.state import TrainState

PLAN = Plan(precision="fp64")
NEVER = 1e9  # seconds between checkpoints: more than any test takes


class Killed(Exception):
    """A stand-in for SIGKILL."""


class Interrupted(Training):
    """A training that saves at every yield of `fit` and dies after `pulses` yields."""

    def __init__(self, spec: RunSpec, store: Store, pulses: int) -> None:
        super().__init__(spec, PLAN, store, checkpoint_seconds=1e-9)
        self.left = pulses

    def _pulse(self, progress: Progress, state: TrainState) -> None:
        super()._pulse(progress, state)
        self.left -= 1
        if not self.left:
            raise Killed


def interrupt(spec: RunSpec, store: Store, pulses: int = 1) -> None:
    """Train until the process "dies" after `pulses` yields of `fit`."""
    with pytest.raises(Killed):
        Interrupted(spec, store, pulses).run()


def attempt(spec: RunSpec, store: Store) -> str:
    """Train, and return the outcome."""
    outcome: str = Training(spec, PLAN, store, NEVER).run()["outcome"]
    return outcome


def train(spec: RunSpec, store: Store) -> Training:
    """Train to the end."""
    training = Training(spec, PLAN, store, NEVER)
    assert training.run()["outcome"] == "done"
    return training


def folder_of(store: Store, spec: RunSpec) -> Path:
    assert store.local_path
    return store.local_path / "models" / spec.spec_id


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "model").state_dict()


def require_same_weights(spec: RunSpec, one: Store, other: Store) -> None:
    """Check that a training ended with the same weights in two studies, to the bit."""
    a, b = weights(folder_of(one, spec)), weights(folder_of(other, spec))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in b)
