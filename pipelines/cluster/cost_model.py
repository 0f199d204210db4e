"""Predict the cost of a training on a given machine: arithmetic, all-reduce, start-up, checkpoints.

The model is small enough to check by hand. `python -m pipelines.cluster.cost_model` prints the tables of docs/scaling.md.
`--dry-run` and the default layout on GPUs use the same functions.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from uvb.config import Config
from uvb.errors import one_line
from uvb.models.base import Energy, Estimator
from uvb.models.capacity import default_widths, parameters, scaled_widths, skeleton
from uvb.spec import RECIPES, DataRef, RunSpec, Shape
from uvb.training.objectives import OBJECTIVES
from uvb.training.state import steps_per_epoch

# bytes for each parameter
GRADIENT_BYTES = 4  # in an all-reduce: float32
STATE_BYTES = 16  # in a checkpoint: weights, their average, two moments
DEVICE_BYTES = 20  # on each device: weights, their average, two moments, the gradient
UPDATE_BYTES = 40  # moved through memory in each step: to update by Adam, to average, to zero the gradient

HIDDEN = 2 / 3  # the backward pass's share of a step's arithmetic; DDP runs the all-reduce during the backward pass
CHECKPOINT_SECONDS = 30.0  # between two checkpoints of a training


@dataclass(frozen=True)
class Machine:
    """One worker's device, and the links between workers.

    Attributes:
        flops: operations per second in large matrix products, in the training's precision.
        share: the part of `flops` that the paper's networks reach.
        memory: bytes per second to and from the device's memory.
        overhead: seconds of each step that depend on neither batch nor network, e.g. to launch kernels.
        per_node: workers on one node.
        near: bytes per second between workers on one node.
        far: bytes per second between workers on different nodes.
        hop: latency in seconds of each of the 2 (P - 1) rounds of an all-reduce of P workers.
        capacity: bytes of the device's memory.
        disk: bytes per second to the disk of checkpoints.
        startup: seconds until a worker group begins to train.
    """

    name: str
    flops: float
    share: float
    memory: float
    overhead: float
    per_node: int
    near: float
    far: float
    hop: float
    capacity: float
    disk: float
    startup: float


# Two cores with AVX512-bf16 form one worker with two threads. flops is their bf16 peak.
TWO_CORES = Machine(
    "2 cores", flops=7.2e11, share=0.65, memory=1.6e10, overhead=4e-3, per_node=1, near=1e9, far=1e9, hop=1e-4,
    capacity=2.4e10, disk=3e8, startup=15.0,
)  # fmt: skip
# Share and overhead are fitted to measured steps (results/speed/nvidia-h200.md). The links have the manufacturer's figures.
H200 = Machine(
    "H200, 8 per node, 3.2 Tbit/s between nodes", flops=7.9e14, share=0.65, memory=4e12, overhead=1.2e-3, per_node=8,
    near=2e11, far=1e11, hop=1e-5, capacity=1.4e11, disk=1e9, startup=20.0,
)  # fmt: skip
# The workers of ray_cluster.yaml, with 10 Gbit/s between nodes. Share is assumed; the other figures are the manufacturer's.
L4 = Machine(
    "L4, one per node, 10 Gbit/s between nodes", flops=6e13, share=0.5, memory=2.4e11, overhead=4e-4, per_node=1,
    near=1e9, far=1e9, hop=5e-5, capacity=2.2e10, disk=5e8, startup=20.0,
)  # fmt: skip


@lru_cache(maxsize=1024)
def forward_flops(model: str, shape: Shape, widths: Config) -> float:
    """Count the operations of one image's energy, on the meta device. If the model has no energy, count those of its estimate.

    If the model cannot run on that device, e.g. because it reads the values of tensors, assume two operations for each
    parameter.
    """
    net = skeleton(model, shape, widths)
    with FlopCounterMode(display=False) as counter:
        try:
            run_once(net, shape)
        except Exception as error:  # a plug-in may raise anything
            reason = one_line(error)
            warnings.warn(f"{model}: its operations cannot be counted ({reason}), so its cost is a guess", stacklevel=2)
            return 2.0 * sum(p.numel() for p in net.parameters())
    return float(counter.get_total_flops())


@torch.no_grad()
def run_once(net: Estimator, shape: Shape) -> None:
    """Compute one energy, or one estimate if `net` has no energy, on the device of `net`."""
    with torch.device(net.sigma.device):
        y, eps = torch.zeros(1, *shape), torch.zeros(1, net.noise_dim)
        net.energy(y, eps) if isinstance(net, Energy) else net(y, eps)


@lru_cache(maxsize=1024)
def image_flops(model: str, shape: Shape, widths: Config, objective: str) -> float:
    """Operations of a training step for one image. The step costs 6 forward passes if the loss contains ∇_y f, otherwise 3."""
    energy = isinstance(skeleton(model, shape, widths), Energy)
    passes = 6 if energy and OBJECTIVES.get(objective).differentiates_twice else 3
    return passes * forward_flops(model, shape, widths)


def training_flops(spec: RunSpec) -> float:
    """Operations of the whole training of `spec`. They include the padding of each epoch's last batch."""
    images = steps_per_epoch(spec) * spec.recipe.batch_size
    return image_flops(spec.model, spec.data.shape, spec.widths, spec.objective) * images * spec.recipe.epochs


@dataclass(frozen=True)
class Work:
    """The numbers that decide the cost of a training."""

    flops_per_image: float
    parameters: int
    batch: int
    steps: int

    @staticmethod
    def of(spec: RunSpec) -> "Work":
        flops = image_flops(spec.model, spec.data.shape, spec.widths, spec.objective)
        count = parameters(spec.model, spec.data.shape, spec.widths)
        return Work(flops, count, spec.recipe.batch_size, steps_per_epoch(spec) * spec.recipe.epochs)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of all gradients. In an all-reduce each of P workers sends and receives 2 (P - 1) / P times this number."""
        return GRADIENT_BYTES * self.parameters

    @property
    def checkpoint_bytes(self) -> int:
        return STATE_BYTES * self.parameters

    def fits(self, machine: Machine) -> bool:
        """Whether weights, gradients and Adam's state fit into one device. Data parallelism keeps a copy on each device."""
        return DEVICE_BYTES * self.parameters <= machine.capacity


def allreduce_seconds(work: Work, machine: Machine, workers: int) -> float:
    """Seconds of an all-reduce in a ring of `workers`. The slowest link sets its speed."""
    if workers == 1:
        return 0.0
    link = machine.near if workers <= machine.per_node else machine.far
    return 2 * (workers - 1) / workers * work.gradient_bytes / link + 2 * (workers - 1) * machine.hop


def step_seconds(work: Work, machine: Machine, workers: int = 1) -> float:
    """Seconds of one optimizer step. Workers share the arithmetic of the global batch, but each updates all weights."""
    arithmetic = math.ceil(work.batch / workers) * work.flops_per_image / (machine.flops * machine.share)
    update = UPDATE_BYTES * work.parameters / machine.memory
    waiting = max(0.0, allreduce_seconds(work, machine, workers) - HIDDEN * arithmetic)
    return machine.overhead + arithmetic + update + waiting


def training_seconds(work: Work, machine: Machine, workers: int = 1) -> float:
    """Seconds of a training with its start-up. Every `CHECKPOINT_SECONDS` all workers wait until a checkpoint is saved."""
    saving = work.checkpoint_bytes / machine.disk
    return machine.startup + work.steps * step_seconds(work, machine, workers) * (1 + saving / CHECKPOINT_SECONDS) + saving


def study_seconds(works: Sequence[Work], machine: Machine, devices: int, workers: int) -> float:
    """Seconds until all trainings have ended, if each uses `workers` devices and longer trainings start first."""
    slots = [0.0] * max(1, min(devices // workers, len(works)))
    for seconds in sorted((training_seconds(work, machine, workers) for work in works), reverse=True):
        slots[slots.index(min(slots))] += seconds
    return max(slots)


def best_workers(works: Sequence[Work], machine: Machine, devices: int) -> int:
    """The number of workers for each model: the smallest power of two that brings the study within 2 % of its shortest time."""
    most = min(devices, min(work.batch for work in works))
    seconds = {2**i: study_seconds(works, machine, devices, 2**i) for i in range(most.bit_length())}  # powers of two up to most
    return min(workers for workers, each in seconds.items() if each <= 1.02 * min(seconds.values()))


# ------------------------------------------------------------------------------------------------------ docs/scaling.md

BATCH = 128  # the paper's batch size, and ours on GPUs
EPOCHS = 40  # enough on a GPU to reach the paper's losses
DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WORKERS = (2, 8, 16, 32, 128)  # of one training, in the tables of speed-ups
CASES: dict[str, dict[str, bool]] = {
    "the paper's, MNIST": {},
    "images 100 times larger": {"larger_images": True},
    "networks 100 times larger": {"larger_networks": True},
    "both": {"larger_images": True, "larger_networks": True},
}


def paper_work(model: str, *, larger_images: bool = False, larger_networks: bool = False, epochs: int = EPOCHS) -> Work:
    """A training on MNIST, in batches of 128. Options: images of 280x280, and ten times the paper's widths, except d_z."""
    shape = (1, 280, 280) if larger_images else (1, 28, 28)
    widths = default_widths(model, (1, 28, 28))
    data = DataRef("mnist", "", shape, 60_000)
    recipe = RECIPES["fast"].changed(epochs=epochs, batch_size=BATCH)
    return Work.of(RunSpec(data, model, scaled_widths(widths, 10 if larger_networks else 1), 1.0, "denoise", recipe))


def paper_study(**case: bool) -> list[Work]:
    """The paper's comparison: UVB and DEEN at eight noise levels."""
    return [paper_work(model, **case) for model in ("uvb", "deen")] * 8


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rows_of(cells: Callable[[Work], list[str]]) -> list[list[str]]:
    """A row for each case and model, with the `cells` of that training."""
    return [
        [f"{model}, {case}", *cells(paper_work(model, **flags))] for case, flags in CASES.items() for model in ("uvb", "deen")
    ]


def inputs_table() -> str:
    """Sizes and operations of each training. A step has the operations of 6 forward passes."""

    def cells(work: Work) -> list[str]:
        flops = [f"{work.flops_per_image / 6e9:,.2f}", f"{work.flops_per_image * work.batch / 1e12:,.2f}"]
        return [f"{work.parameters:,}", *flops, f"{work.gradient_bytes / 1e6:,.0f}", f"{work.checkpoint_bytes / 1e6:,.0f}"]

    head = ["", "parameters", "forward, GFLOP per image", "step, TFLOP", "all-reduce, MB", "checkpoint, MB"]
    return table(head, rows_of(cells))


def check_table() -> str:
    """The cost model beside the measured steps."""
    rows = []
    for machine, digits, uvb, deen in ((TWO_CORES, 0, "450-510 ms", "2,600 ms"), (H200, 2, "2.07 ms", "3.26 ms")):
        for model, measured in (("uvb", uvb), ("deen", deen)):
            predicted = f"{1e3 * step_seconds(paper_work(model), machine):,.{digits}f} ms"
            rows.append([f"{model}, {machine.name.split(',')[0]}", predicted, measured])
    return table(["a step of 128 MNIST images, bf16", "predicted", "measured"], rows)


def speedup_table(machine: Machine) -> str:
    """The speed-up of a step with P workers."""

    def cells(work: Work) -> list[str]:
        one = step_seconds(work, machine)
        speedups = [f"{one / step_seconds(work, machine, workers):.2f}" for workers in WORKERS]
        return [f"{one * 1000:,.3g} ms", *speedups] if work.fits(machine) else ["does not fit"] + [""] * len(speedups)

    return table(["", "a step on 1", *(f"speed-up on {p}" for p in WORKERS)], rows_of(cells))


def study_table(machine: Machine) -> str:
    """Times to train the comparison's 16 models on 1 to 256 devices: with one worker per model, then with the best number."""

    def cell(works: list[Work], devices: int) -> str:
        workers = best_workers(works, machine, devices)
        alone, best = study_seconds(works, machine, devices, 1), study_seconds(works, machine, devices, workers)
        return f"{clock(alone)} / {clock(best)} with {workers}" if workers > 1 else clock(alone)

    studies = {case: paper_study(**flags) for case, flags in CASES.items()}
    fitting = {case: works for case, works in studies.items() if all(work.fits(machine) for work in works)}
    rows = [[str(devices), *(cell(works, devices) for works in fitting.values())] for devices in DEVICES]
    return table(["devices", *fitting], rows)


def clock(seconds: float) -> str:
    """A time as text, such as ``80 s``, ``2.1 min``, ``34 h`` or ``5.0 d``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            digits = 0 if seconds >= 10 * size else 1
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def document() -> str:
    """All tables as docs/scaling.md has them."""
    parts = ["### What a training has to move", inputs_table(), "### The model against measurements", check_table()]
    for machine in (H200, L4):
        parts += [f"### One training, more devices: {machine.name}", speedup_table(machine)]
        parts += [f"### The comparison's 16 models, {EPOCHS} epochs each: {machine.name}", study_table(machine)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(document())
