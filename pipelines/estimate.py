"""How long a study would take on this machine: the cost model of docs/SCALING.md, fitted to a few measured steps."""

import dataclasses
import time
from collections.abc import Sequence

import torch

from pipelines.cost_model import TWO_CORES, UPDATE_BYTES, Machine, Work, forward_flops, training_seconds
from uvb.data import ImageSet
from uvb.evaluate import EvalConfig, evaluation_images, noisy_blocks
from uvb.models import build_model
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.train import fit
from uvb.train_state import TrainState, steps_per_epoch

MEASUREMENT_SHARE = 1.5  # all default experiments of a model, in units of its loss tables' cost
FP32_COST = 4.0  # an operation's time in fp32, in units of one in bf16: 3.0 to 3.9 in steps (docs/RESULTS.md), 5 in products


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
    return best if best < float("inf") else state.seconds / 2 / steps_per_epoch(few)


def fitted_machine(work: Work, step: float) -> Machine:
    """A machine on which the cost model gives one worker a step of `step` seconds: its arithmetic is what is fitted."""
    rest = TWO_CORES.overhead + UPDATE_BYTES * work.parameters / TWO_CORES.memory
    arithmetic = max(step - rest, 0.1 * step)  # seconds; a tiny network's step is all overhead
    return dataclasses.replace(TWO_CORES, flops=work.batch * work.flops_per_image / arithmetic, share=1.0, startup=0.0)


def estimated_seconds(specs: Sequence[RunSpec], plan: Plan, images: ImageSet) -> dict[str, float]:
    """Seconds of training by spec_id, on this machine: a step measured for each kind of model, the rest by the cost model.

    Start-up is not in it; it comes once a group.
    """
    measured: dict[tuple[object, ...], float] = {}
    found = {}
    for spec in specs:
        kind = (spec.model, spec.widths, spec.objective, spec.activation, spec.recipe.batch_size, spec.recipe.optimizer)
        if kind not in measured:
            measured[kind] = step_seconds(spec, dataclasses.replace(plan, workers=1, compile=False), images)
        work = Work.of(spec)
        found[spec.spec_id] = training_seconds(work, fitted_machine(work, measured[kind]), plan.workers)
    return found


def estimates_a_model(images: ImageSet, config: EvalConfig) -> int:
    """How many x̂(y) a model's loss tables take: images of both splits, times the noise draws."""
    return sum(len(evaluation_images(images, split, config)) for split in ("train", "test")) * config.draws


def measurement_flops(specs: Sequence[RunSpec], precision: str, trained_in: str, images: ImageSet, config: EvalConfig) -> float:
    """Operations of the default experiments of all models in `precision`, as many as take their time in `trained_in`."""
    slower = FP32_COST if (precision, trained_in) == ("fp32", "bf16") else 1.0
    count = estimates_a_model(images, config) * MEASUREMENT_SHARE * slower
    passes = 2  # x̂(y) of an energy: forward, and back to y
    return sum(passes * count * forward_flops(spec.model, spec.data.shape, spec.widths) for spec in specs)


@torch.no_grad()
def measurement_seconds(specs: Sequence[RunSpec], plan: Plan, images: ImageSet, config: EvalConfig, at_once: int) -> float:
    """Seconds of the default experiments of all models, from one block of estimates timed for each kind of model."""
    torch.set_num_threads(plan.threads)
    count = estimates_a_model(images, config)
    timed: dict[tuple[object, ...], float] = {}
    total = 0.0
    for spec in specs:
        kind = (spec.model, spec.widths, spec.activation)
        if kind not in timed:
            model = build_model(spec).to(plan.dtype)
            _, y, eps = next(
                noisy_blocks(images.test[:64], images.levels, spec.sigma, model.noise_dim, "test", 0, config, plan)
            )
            with plan.autocast():
                model(y, eps)
                started = time.monotonic()
                model(y, eps)
            timed[kind] = (time.monotonic() - started) / len(y)
        total += MEASUREMENT_SHARE * count * timed[kind]
    return total / max(1, at_once)
