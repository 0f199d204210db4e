"""Decide, without Ray: the number of workers for each model, their CPUs and GPUs, and how many models train at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pipelines.cluster.cost_model import L4, Work, best_workers
from pipelines.study.config import ClusterOptions
from pipelines.words import counted
from uvb.errors import UserError
from uvb.machine import usable_cpus
from uvb.spec import RunSpec

TRIAL_CPUS = 0.01  # the CPUs of a trial, which only waits for its workers; Ray refuses 0
LEAST_CPUS = 0.01  # the fewest CPUs that a worker can have


@dataclass(frozen=True)
class Capacity:
    """The CPUs and GPUs of a cluster or of this machine: in all, and of each node."""

    cpus: int
    gpus: int
    nodes: tuple[tuple[int, int], ...]  # (CPUs, GPUs) of each node
    cluster: bool

    def __str__(self) -> str:
        where = f"the cluster ({counted(len(self.nodes), 'node')})" if self.cluster else "this machine"
        return f"{where} has {counted(self.cpus, 'CPU')} and {counted(self.gpus, 'GPU')}"

    @property
    def node_cpus(self) -> list[int]:
        """The CPUs of each node. Expected CPUs that are not there yet count as further nodes of the largest node's size."""
        return _with_expected([cpus for cpus, _ in self.nodes if cpus], self.cpus)

    @property
    def node_gpus(self) -> list[int]:
        """The GPUs of each node that has some. Expected GPUs count as in `node_cpus`."""
        return _with_expected([gpus for _, gpus in self.nodes if gpus], self.gpus)


def _with_expected(found: list[int], total: int) -> list[int]:
    size, missing = max(found, default=total), total - sum(found)
    if missing <= 0:
        return found
    full, rest = divmod(missing, size)
    return found + [size] * full + ([rest] if rest else [])


@dataclass(frozen=True)
class Layout:
    """How the trainings share the machines: `concurrency` groups train at a time, each with `workers` workers."""

    workers: int
    concurrency: int
    cpus_per_worker: float
    gpus_per_worker: float

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus_per_worker else "cpu"

    @property
    def threads(self) -> int:
        """CPU threads of one worker: its CPUs as a whole number. A worker may have 0.99 CPUs, because trials take a share."""
        return max(1, round(self.cpus_per_worker))

    @property
    def resources(self) -> dict[str, float]:
        """The resources that one worker requests from Ray."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}

    def __str__(self) -> str:
        each = f"{self.cpus_per_worker:g} CPU" + (f" and {self.gpus_per_worker:g} GPU" if self.gpus_per_worker else "")
        together = "one model at a time" if self.concurrency == 1 else f"{self.concurrency} models at a time"
        return f"{together}, {counted(self.workers, 'worker')} of {each} each"


def local_capacity() -> Capacity:
    """The CPUs and GPUs of this machine."""
    cpus, gpus = usable_cpus(), torch.cuda.device_count()
    return Capacity(cpus, gpus, ((cpus, gpus),), cluster=False)


def choose_layout(options: ClusterOptions, has: Capacity, specs: Sequence[RunSpec]) -> Layout:
    """Choose the layout for the trainings of `specs`: keep the options that the user set, and choose the others to suit `has`.

    On CPUs, the default is one worker for each model, and as many models at a time as there are CPUs. In measurements this was
    faster than several workers for each model (docs/scaling.md). On GPUs, the default is one worker for each model, unless
    there are more GPUs than models. Then the cost model of docs/scaling.md says how many workers make the study shortest.

    Raises:
        UserError: the options ask for more than `has`.
    """
    return _gpu_layout(options, has, specs) if options.use_gpu else _cpu_layout(options, has, specs)


def _cpu_layout(options: ClusterOptions, has: Capacity, specs: Sequence[RunSpec]) -> Layout:
    workers = options.num_workers or 1
    least = options.cpus_per_worker or 1.0
    slots = sum(int(cpus / least) for cpus in has.node_cpus)  # a worker does not span nodes
    if not has.cpus:
        raise UserError(f"a worker needs CPUs, but {has}; if the cluster adds nodes on demand, give --expect-cpus")
    if workers > slots:
        asked = f"{counted(workers, 'worker')} of {least:g} {'CPU' if least == 1 else 'CPUs'} each"
        most = max(has.node_cpus)
        advice = f"{slots} (--num-workers)" if slots else f"{most} CPUs each, the most on one node (--cpus-per-worker)"
        raise UserError(f"you asked for {asked}, but {has}; ask for at most {advice}")
    fitting = slots // workers
    concurrency = options.concurrent_trials or min(fitting, len(specs))
    if concurrency > fitting and options.cpus_per_worker:
        raise UserError(
            f"you asked for {concurrency} trials at a time of {workers} x {least:g} CPUs, but {has}; "
            f"ask for at most {fitting} (--concurrent-trials), or fewer CPUs per worker"
        )
    # Each trial takes a small share of the CPUs. The workers get equal shares of the rest.
    spare = concurrency * TRIAL_CPUS
    share = cpu_share(has.node_cpus, concurrency * workers, spare) if spare < max(has.node_cpus) else 0.0
    if share < LEAST_CPUS:
        raise UserError(f"you asked for {concurrency} trials at a time, but {has}; ask for fewer (--concurrent-trials)")
    cpus = min(options.cpus_per_worker or share, share)
    return Layout(workers, concurrency, int(cpus * 100 + 1e-6) / 100, 0.0)  # round down to hundredths


def cpu_share(nodes: Sequence[int], count: int, spare: float) -> float:
    """The most CPUs that each of `count` workers can have, if no worker spans nodes and each node keeps `spare` CPUs free."""
    free = [cpus - spare for cpus in nodes if cpus > spare]
    # The answer divides some node equally among its workers. So try only such shares, the largest first.
    shares = sorted({cpus / workers for cpus in free for workers in range(1, count + 1)}, reverse=True)
    return next(share for share in shares if sum(int(cpus / share + 1e-9) for cpus in free) >= count)


def _gpu_layout(options: ClusterOptions, has: Capacity, specs: Sequence[RunSpec]) -> Layout:
    each = options.gpus_per_worker
    if not has.gpus:
        raise UserError(f"you gave --use-gpu, but {has}; if the cluster adds GPU nodes on demand, give --expect-gpus, too")
    slots = sum(int(gpus / each + 1e-9) for gpus in has.node_gpus)  # a worker does not span nodes
    if not slots:
        most = max(has.node_gpus)
        raise UserError(
            f"you asked for {each:g} GPUs per worker, but {has}, {most} on one node; ask for at most {most} (--gpus-per-worker)"
        )
    if each < 1 and options.num_workers > 1:  # NCCL refuses two ranks of one model on one GPU
        raise UserError(
            f"you asked for {options.num_workers} workers per model of {each:g} GPU each, "
            "but workers of one model need a whole GPU each: give --gpus-per-worker 1, or --num-workers 1"
        )
    workers = options.num_workers or (1 if each < 1 else best_workers([Work.of(spec) for spec in specs], L4, slots))
    concurrency = options.concurrent_trials or max(1, min(slots // workers, len(specs)))
    count = workers * concurrency
    if count > slots:
        asked = f"{concurrency} x {workers} workers of {each:g} GPU each"
        raise UserError(f"you asked for {asked}, but {has}; ask for at most {slots}")
    spare = concurrency * TRIAL_CPUS
    on_each_node = [(cpus - spare) / (gpus / each) for cpus, gpus in has.nodes if gpus]  # CPUs for each worker
    share = int(100 * min([(has.cpus - spare) / count, *on_each_node])) / 100  # round down to hundredths
    if share < LEAST_CPUS:
        raise UserError(
            f"{counted(concurrency, 'trial')} at a time of {counted(workers, 'worker')} need CPUs beside the GPUs, but {has}; "
            "ask for fewer trials (--concurrent-trials), or give the nodes with GPUs more CPUs"
        )
    cpus = options.cpus_per_worker or min(4.0, share)
    if cpus > share:
        asked = f"{counted(count, 'worker')} of {cpus:g} {'CPU' if cpus == 1 else 'CPUs'} each"
        raise UserError(f"you asked for {asked}, but {has}; ask for at most {share:g} CPUs per worker")
    return Layout(workers, concurrency, cpus, each)
