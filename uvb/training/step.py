"""Prepare a training step: compile the objective, make it data parallel, and compute its gradients."""

import math
import re
import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uvb.accelerate.compiled import CompiledObjective
from uvb.accelerate.cuda_graph import Graphed
from uvb.accelerate.gradients import Gradients, clip, distance
from uvb.errors import UserError, with_type
from uvb.noise import normal
from uvb.plan import Plan
from uvb.training.objectives import Objective, freeze_unused, require_one_energy_an_image
from uvb.training.parallel import first_of_all_ranks, rank_and_world


def prepare(objective: Objective, plan: Plan, shape: tuple[int, int, int, int]) -> nn.Module:
    """Check `objective`, compile it and wrap it for data parallelism, as the plan says.

    DDP regroups its gradient buckets after the first backward pass, which changes the order of sums. So this function runs one
    backward pass in advance. Then a resumed training adds in the same order as an uninterrupted one.

    Args:
        shape: (B / workers, C, H, W), the shape of this worker's slice of a batch.

    Raises:
        UserError: the model's loss or its gradient cannot be computed.
    """
    shapes = (shape, shape, (shape[0], objective.model.noise_dim))
    x, noise, eps = (normal(s, 0, "example", i, device=plan.device).to(plan.dtype) for i, s in enumerate(shapes))
    arguments = (x, noise, eps, x.new_full((len(x),), 1 / len(x)))
    wrong, cause = "", None
    try:
        with plan.autocast():
            require_one_energy_an_image(objective.model, x)
            freeze_unused(objective, x)
    except UserError as error:
        wrong = str(error)
    except Exception as error:  # a bug in the model would repeat at every step and on every worker, so stop now
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or re.search("CUDA|CUDNN|CUBLAS|memory", str(error)):
            raise  # the machine may be the cause, so a later attempt may succeed
        reason = with_type(error)
        wrong, cause = f"{type(objective.model).__name__} cannot be trained ({reason}); mend it, or leave it out", error
    if wrong := first_of_all_ranks(wrong):
        raise UserError(wrong) from cause
    prepared: nn.Module = objective
    if plan.compile:
        try:
            prepared = CompiledObjective(objective, plan, arguments)
        except Exception as error:  # the compiler may raise anything; training works without it, but more slowly
            reason = with_type(error)
            warnings.warn(f"torch.compile failed ({reason}); training eagerly", stacklevel=2)
    if rank_and_world()[1] > 1:
        with plan.autocast(), warnings.catch_warnings():
            # The first warning is harmless: with one channel, strides may differ for the same memory layout. The second cannot
            # be avoided, because older versions of torch know only the name `broadcast_buffers`.
            warnings.filterwarnings("ignore", message="Grad strides do not match|`broadcast_buffers` is deprecated")
            prepared = DistributedDataParallel(prepared, broadcast_buffers=False, gradient_as_bucket_view=True)
            prepared(*arguments).backward()
    objective.zero_grad(set_to_none=True)
    return prepared


def gradients_of(loss_of: nn.Module, plan: Plan, longest: float = math.inf) -> Gradients:
    """Make a function of a batch that returns the loss and leaves the gradients in ``.grad``, clipped to the norm `longest`.

    The function runs as one CUDA graph if the plan says so.
    """
    trained = [p for p in loss_of.parameters() if p.requires_grad]

    def loss_and_gradients(*batch: Tensor) -> tuple[Tensor | None, ...]:
        for parameter in trained:
            parameter.grad = None  # so that the backward pass writes instead of adding
        with plan.autocast():
            loss: Tensor = loss_of(*batch)
        loss.backward()
        if math.isfinite(longest):
            clip(trained, longest)
        return loss.detach(), *(p.grad for p in trained)

    # The check of the graph compares only the gradients, because the loss is much larger and would hide their differences.
    computed = Graphed(loss_and_gradients, lambda a, b: distance(a[1:], b[1:])) if plan.graph else loss_and_gradients

    def gradients(*batch: Tensor) -> Tensor:
        loss, *found = computed(*batch)
        for parameter, gradient in zip(trained, found, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return loss

    return gradients
