"""How long a study would take on this machine, from a few measured steps; nothing is written."""

import dataclasses
import time
from collections.abc import Sequence

from uvb.data import ImageSet
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.train import fit
from uvb.train_state import TrainState, steps_per_epoch


def step_seconds(spec: RunSpec, plan: Plan, images: ImageSet, steps: int = 4) -> float:
    """Measured here: one training step of `spec` in one process with ``plan.threads`` threads, its fastest of a few."""
    data = dataclasses.replace(spec.data, train_images=min(steps * spec.recipe.batch_size, spec.data.train_images))
    few = dataclasses.replace(spec, data=data, recipe=dataclasses.replace(spec.recipe, epochs=2))
    state = TrainState.fresh(few, plan)
    best, started = float("inf"), time.monotonic()
    for progress in fit(few, plan, state, images, pulse_seconds=0.0):
        if progress.metrics is None:  # between two steps; an epoch's end measures the test loss as well
            best = min(best, time.monotonic() - started)
        started = time.monotonic()
    return best if best < float("inf") else state.seconds / 2


def estimated_seconds(specs: Sequence[RunSpec], plan: Plan, images: ImageSet) -> dict[str, float]:
    """Seconds of training by spec_id, on this machine: measured for each kind of model, and shared out by the workers."""
    measured: dict[tuple[object, ...], float] = {}
    found = {}
    for spec in specs:
        kind = (spec.model, spec.widths, spec.objective, spec.activation, spec.recipe.batch_size)
        if kind not in measured:
            measured[kind] = step_seconds(spec, dataclasses.replace(plan, workers=1, compile=False), images)
        found[spec.spec_id] = measured[kind] * steps_per_epoch(spec) * spec.recipe.epochs / plan.workers
    return found
