"""Decide which models train together: give each model a plan, and split the models of each plan into groups."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.cluster.cost_model import TWO_CORES, Work, training_flops, training_seconds
from pipelines.cluster.layout import Capacity, Layout
from pipelines.study.config import ClusterOptions
from uvb.errors import UserError
from uvb.plan import Plan, resolve_plan
from uvb.spec import RunSpec

GROUP_SECONDS = 600.0  # how long a group should train, so that its start-up of 15 s matters little
FLOPS_A_SECOND = {"cpu": 1e11, "cuda": 1e14}  # a rough speed of one worker, used only to split groups


@dataclass(frozen=True)
class Group:
    """Models that one TorchTrainer trains in turn, with one plan."""

    specs: tuple[RunSpec, ...]
    plan: Plan


def new_plan(
    options: ClusterOptions, layout: Layout, specs: Sequence[RunSpec], resolve: Callable[..., Plan] = resolve_plan
) -> Plan:
    """Make one plan for all `specs`, none of which has a plan yet.

    Args:
        resolve: `resolve_plan`, or a function that runs it where the workers will run.
    """
    # All models share the plan, so the shortest training decides whether compiling saves time. This estimate is for a CPU.
    shortest = min(training_seconds(Work.of(spec), TWO_CORES, layout.workers) for spec in specs)
    return resolve(
        workers=layout.workers, device=layout.device, precision=options.precision, compile=options.compile,
        threads=layout.threads, seconds=shortest,
    )  # fmt: skip


def require_usable(plan: Plan, layout: Layout, has: Capacity) -> None:
    """Check that a stored plan can be used again.

    Raises:
        UserError: the plan cannot be used on this cluster, or with the options given.
    """
    problem = ""
    if plan.device != layout.device:
        problem = f"device {plan.device}, but this run uses {layout.device} (--use-gpu)"
    elif plan.workers > (has.cpus if plan.device == "cpu" else has.gpus / layout.gpus_per_worker):
        problem = f"{plan.workers} workers, but {has}"
    if problem:
        raise UserError(f"the stored plan of a half-trained model needs {problem}; use --replan to choose a new plan")
    if not has.cluster:  # on a cluster, the driver's machine is not like those of the workers
        plan.require_possible_here()


def make_groups(plans: dict[Plan, list[RunSpec]], layout: Layout, one_each: bool) -> list[Group]:
    """Split the models of each plan into groups. If `one_each`, every group has one model."""
    return [
        Group(part, plan)
        for plan, specs in plans.items()
        for part in balanced(specs, len(specs) if one_each else group_count(specs, plan, layout))
    ]


def group_count(specs: Sequence[RunSpec], plan: Plan, layout: Layout) -> int:
    """The number of groups, at most one for each model.

    It is `layout.concurrency` (how many groups train at a time), or a multiple of it if groups would otherwise train
    for longer than `GROUP_SECONDS`.
    """
    seconds = sum(map(training_flops, specs)) / FLOPS_A_SECOND[plan.device] / plan.workers
    return min(len(specs), layout.concurrency * max(1, math.ceil(seconds / layout.concurrency / GROUP_SECONDS)))


def balanced(specs: Sequence[RunSpec], groups: int) -> list[tuple[RunSpec, ...]]:
    """Split `specs` into at most `groups` parts of about equal cost. Sort each part by seed, then from large to small noise."""
    parts: list[list[RunSpec]] = [[] for _ in range(min(groups, len(specs)))]
    loads = [0.0] * len(parts)
    for spec in sorted(specs, key=lambda spec: (-training_flops(spec), -spec.sigma, spec.spec_id)):
        least = loads.index(min(loads))
        parts[least].append(spec)
        loads[least] += training_flops(spec)
    return [tuple(sorted(part, key=lambda spec: (spec.seed, -spec.sigma, spec.model, spec.spec_id))) for part in parts]


def fitted(layout: Layout, groups: Sequence[Group]) -> Layout:
    """Adapt `layout` to stored plans: if a plan has more workers than `layout`, divide the same CPUs among them."""
    workers = max(group.plan.workers for group in groups)
    if workers <= layout.workers:
        return layout
    share = int(100 * layout.cpus_per_worker * layout.workers / workers) / 100
    return dataclasses.replace(layout, workers=workers, cpus_per_worker=share)
