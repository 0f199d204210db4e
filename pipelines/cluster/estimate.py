"""Estimate how long a study takes on this machine. Time a few steps, and fit the cost model of docs/scaling.md to them."""

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median_high

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from pipelines.cluster.cost_model import TWO_CORES, UPDATE_BYTES, Machine, Work, forward_flops, training_seconds
from pipelines.executor.measuring import Task
from uvb.data import ImageSet
from uvb.errors import UserError, with_type
from uvb.experiments import Context
from uvb.measure.losses import NoisyImages
from uvb.models import build_model
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.loop import fit
from uvb.training.probe import PROBE_IMAGES
from uvb.training.state import TrainState, steps_per_epoch

# Time in fp32 divided by time in bf16. Measured: 3.0 to 3.9 for training steps (docs/speed.md), 5 for matrix products alone.
FP32_COST = 4.0
PATIENCE = timedelta(minutes=10)  # how long workers wait for each other
STEPS = 6  # steps to run for each kind of model; the first step is not timed, because it also sets things up


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds of a training step, and seconds per image of the probe: the losses on fixed images after each epoch."""

    step: float
    probe: float

    def training(self, spec: RunSpec, images: ImageSet) -> float:
        """Seconds of the whole training of `spec` without checkpoints."""
        test = min(PROBE_IMAGES, len(images.test))
        probed = test + min(test, spec.data.train_images)  # the probe takes as many training images as test images
        return spec.recipe.epochs * (steps_per_epoch(spec) * self.step + probed * self.probe)


def pace(spec: RunSpec, plan: Plan, images: ImageSet) -> Pace:
    """Time a few steps of `spec` and one probe. Each worker of the plan calls this."""
    data = dataclasses.replace(spec.data, train_images=min(STEPS * spec.recipe.batch_size, spec.data.train_images))
    few = dataclasses.replace(spec, data=data, recipe=dataclasses.replace(spec.recipe, epochs=2))
    steps = steps_per_epoch(few)
    state, step_seconds = TrainState.fresh(few, plan), []
    started = time.monotonic()
    for progress in fit(few, plan, state, images, pulse_seconds=0.0):
        now = time.monotonic()
        if progress.metrics is None:  # within an epoch
            step_seconds.append(now - started)
        elif steps > 2:  # an epoch has ended: since `started`, its last step and the probe have run
            step = median_high(step_seconds[1:])
            test = min(PROBE_IMAGES, len(images.test))
            return Pace(step, max(0.0, now - started - step) / (test + min(test, data.train_images)))
        started = time.monotonic()
    # An epoch of one or two steps is too short to time a single step, so time the whole second epoch.
    return Pace((state.curves[1].seconds - state.curves[0].seconds) / steps, 0.0)


def paces(specs: Sequence[RunSpec], plan: Plan, images: ImageSet) -> list[Pace]:
    """The pace of each of `specs` under `plan`, but without compiling.

    If the plan has several workers on CPUs, run one process for each worker.

    Raises:
        UserError: a spec cannot be trained.
    """
    plan = dataclasses.replace(plan, compile=False)
    most = max((spec.recipe.batch_size for spec in specs), default=1)
    # Copy the images: to send a slice of a memory map to other processes, torch would send the whole map.
    train, test = images.train[: STEPS * most].clone(), images.test[:PROBE_IMAGES].clone()
    images = dataclasses.replace(images, train=train, test=test, train_labels=None, test_labels=None)
    specs = [dataclasses.replace(s, data=dataclasses.replace(s.data, checksum=images.checksum, train_images=len(images.train)))
             for s in specs]  # fmt: skip
    if plan.workers == 1 or plan.device != "cpu":
        return [_pace(spec, dataclasses.replace(plan, workers=1), images) for spec in specs]
    with tempfile.TemporaryDirectory(prefix="uvb-pace-") as folder:
        spawn(_worker, (specs, plan, images, folder), nprocs=plan.workers)
        told = json.loads((Path(folder) / "told.json").read_text())
    if "error" in told:
        raise UserError(told["error"])
    return [Pace(**each) for each in told["paces"]]


def _pace(spec: RunSpec, plan: Plan, images: ImageSet) -> Pace:
    try:
        return pace(spec, plan, images)
    except UserError:
        raise
    except Exception as error:  # a plug-in's model may raise anything
        raise UserError(f"{spec.label} cannot be trained ({with_type(error)}); mend {spec.model}, or leave it out") from error


def _worker(rank: int, specs: Sequence[RunSpec], plan: Plan, images: ImageSet, folder: str) -> None:
    """Run one of the processes of `paces`. The process of rank 0 writes the paces into `folder`."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=plan.workers, timeout=PATIENCE)
    told: dict[str, object]
    try:
        told = {"paces": [dataclasses.asdict(_pace(spec, plan, images)) for spec in specs]}
    except UserError as error:
        told = {"error": str(error)}
    if rank == 0:
        (Path(folder) / "told.json").write_text(json.dumps(told))
    dist.barrier()
    os._exit(0)  # gloo's threads may abort while Python shuts down, so skip the shutdown


def fitted_machine(work: Work, step: float) -> Machine:
    """A machine for which the cost model predicts steps of `step` seconds on one worker."""
    rest = TWO_CORES.overhead + UPDATE_BYTES * work.parameters / TWO_CORES.memory
    arithmetic = max(step - rest, 0.1 * step)  # seconds; `rest` may exceed the step of a tiny network
    return dataclasses.replace(TWO_CORES, flops=work.batch * work.flops_per_image / arithmetic, share=1.0, startup=0.0)


def estimated_seconds(specs: Sequence[RunSpec], plan: Plan, images: ImageSet) -> dict[str, float]:
    """spec_id -> seconds of training on this machine, by a cost model fitted to a few timed steps of each kind of model.

    Start-up is left out, since a group of models starts only once.
    """
    kinds: dict[tuple[object, ...], list[RunSpec]] = {}
    for spec in specs:
        kind = (spec.model, spec.widths, spec.objective, spec.activation, spec.recipe.batch_size, spec.recipe.optimizer)
        kinds.setdefault(kind, []).append(spec)
    found = {}
    first_of_each = [alike[0] for alike in kinds.values()]
    for alike, measured in zip(kinds.values(), paces(first_of_each, plan, images), strict=True):
        for spec in alike:
            work = Work.of(spec)
            machine = fitted_machine(work, measured.training(spec, images) / work.steps)
            workers = plan.workers if plan.device != "cpu" else 1  # on CPUs the steps were timed with all workers
            found[spec.spec_id] = training_seconds(work, machine, workers)
    return found


def measurement_flops(tasks: Sequence[Task], context: Context, trained_in: str) -> float:
    """Operations of `tasks`, to be timed at the speed of the trainings.

    So if the tasks run in fp32 but the trainings in bf16, each operation counts `FP32_COST` times.

    Args:
        trained_in: the precision of the trainings.
    """
    slower = FP32_COST if (context.plan.precision, trained_in) == ("fp32", "bf16") else 1.0
    total = 0.0
    for task in tasks:
        forward = forward_flops(task.spec.model, task.spec.data.shape, task.spec.widths)
        total += task.gradients(context) * 2 * slower * forward  # a gradient takes a forward and a backward pass
    return total


@torch.no_grad()
def measurement_seconds(tasks: Sequence[Task], context: Context, at_once: int) -> dict[str, float]:
    """Experiment -> seconds that its `tasks` take, if `at_once` tasks run at a time.

    For each kind of model, time x̂(y) on a block of images. A model that cannot be timed counts as 0 s, since the workers will
    report its error.
    """
    timed: dict[tuple[object, ...], float] = {}
    found = dict.fromkeys((task.name for task in tasks), 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(context.plan.threads)
    try:
        for task in tasks:
            kind = (task.spec.model, task.spec.widths, task.spec.activation)
            if kind not in timed:
                try:
                    timed[kind] = _estimate_seconds(task.spec, context)
                except Exception:  # a plug-in may raise anything
                    timed[kind] = 0.0
            found[task.name] += task.gradients(context) * timed[kind] / max(1, at_once)
    finally:
        torch.set_num_threads(threads)
    return found


def _estimate_seconds(spec: RunSpec, context: Context) -> float:
    """Seconds of x̂(y) for one image. Time a block of 16 images. If it takes at most 0.1 s, time a block of 256 instead."""
    model, images = build_model(spec).to(context.plan.device, context.plan.dtype), context.images
    for size in (16, 256):
        noisy = NoisyImages(images.test[:size], images.levels, spec.sigma, "test", context.evaluation, context.plan)
        _, y, eps = next(noisy.blocks(model.noise_dim))
        with context.plan.autocast():
            model(y, eps)
            started = time.monotonic()
            model(y, eps)
            seconds = time.monotonic() - started
        if seconds > 0.1:
            break
    return seconds / len(y)
