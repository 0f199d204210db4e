"""Compile a step's loss and gradients to one graph: forward pass, inner gradient, and the backward pass through both."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.fx.experimental.proxy_tensor import make_fx

from uvb.accelerate.gradients import distance
from uvb.plan import Plan, Precision
from uvb.training.objectives import Objective

# The largest allowed distance of the compiled from the uncompiled gradient, relative to the norm of the uncompiled gradient.
# The gradients differ because fused kernels round less often. On a GPU fp32 may mean TF32.
LARGEST_DISTANCE: dict[Precision, float] = {"fp64": 1e-8, "fp32": 1e-2, "bf16": 5e-2}

Differentiated = Callable[..., tuple[Tensor, Sequence[Tensor]]]  # (parameters, *batch) -> loss, gradients


class CompiledObjective(torch.nn.Module):
    """A compiled objective. Its forward pass also computes the gradients, and ``loss.backward()`` only hands them out.

    The step is traced before it is compiled, so that the compiler sees our hand-written derivatives (`convolution`). Without
    a trace the compiler would use torch's second derivatives. A trace is valid only for the shapes and dtypes of `example`,
    and for the branches that the model's Python code took. So the compiled and the uncompiled gradient on `example` are
    compared.

    Args:
        objective: the objective to compile. Parameters without a gradient must be frozen
            (`uvb.training.objectives.freeze_unused`).
        plan: the device and the precision.
        example: x, noise (B, C, H, W), ε (B, noise_dim), weight (B,).

    Raises:
        RuntimeError: the compiled and the uncompiled gradient differ.
        Exception: the tracer or the compiler failed. They may raise anything.
    """

    def __init__(self, objective: Objective, plan: Plan, example: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.objective = objective
        named = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        self.trained: list[Tensor] = list(named.values())

        def differentiated(parameters: list[Tensor], *batch: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            with plan.autocast():
                loss = torch.func.functional_call(objective, dict(zip(named, parameters, strict=True)), batch)
            return loss.detach(), torch.autograd.grad(loss, parameters)

        trace = make_fx(differentiated, tracing_mode="fake", _allow_non_fake_inputs=True)(self.trained, *example)
        # The trace contains the casts, so the compiler must not add them again.
        without_autocast = torch.autocast(plan.device, enabled=False)
        self.differentiated: Differentiated = without_autocast(torch.compile(trace, fullgraph=True, dynamic=False))
        # By default Dynamo compiles a function at most 8 times, but a process may train more models.
        with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
            _, got = self.differentiated(self.trained, *example)
        _, expected = differentiated(self.trained, *example)
        if not (apart := distance(got, expected)) <= LARGEST_DISTANCE[plan.precision]:  # "not <=" is also true for nan
            raise RuntimeError(f"the compiled gradient differs from the uncompiled one by {apart:.2g} of its norm")

    def forward(self, *batch: Tensor) -> Tensor:
        """The loss of a batch. The arguments are those of `Objective.forward`."""
        loss: Tensor = _LossAndGradients.apply(self.differentiated, len(batch), *batch, *self.trained)
        return loss


class _LossAndGradients(Function):
    @staticmethod
    def forward(ctx: Any, differentiated: Differentiated, inputs: int, *tensors: Tensor) -> Tensor:
        loss, ctx.gradients = differentiated(list(tensors[inputs:]), *tensors[:inputs])
        ctx.inputs = inputs
        return loss

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """Return the gradients that the forward pass computed.

        `g` is always 1, because only `loss.backward()` calls this. Multiplying by `g` would cost a pass over all weights.
        """
        gradients, ctx.gradients = ctx.gradients, None  # with no other reference left, .grad takes them without a copy
        return None, None, *[None] * ctx.inputs, *gradients
