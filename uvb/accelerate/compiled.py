"""A step's loss and gradients as one compiled graph: forward pass, inner gradient, and the backward pass through both."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.fx.experimental.proxy_tensor import make_fx

from uvb.accelerate.gradients import distance
from uvb.plan import Plan, Precision
from uvb.training.objectives import Objective

# The largest distance between the compiled and the uncompiled gradient, relative to its norm. Fused kernels round less often.
LARGEST_DISTANCE: dict[Precision, float] = {"fp64": 1e-8, "fp32": 1e-2, "bf16": 5e-2}  # fp32 may be TF32 on a GPU

Differentiated = Callable[..., tuple[Tensor, Sequence[Tensor]]]  # (parameters, *batch) -> loss, gradients


class CompiledObjective(torch.nn.Module):
    """`objective`, compiled. Its forward pass computes the gradients too, and ``loss.backward()`` hands them out.

    The step is traced before it is compiled, so that the compiler sees the derivatives that we write out (`convolution`).
    Without a trace it would take torch's own second derivatives. A trace fixes the shapes and dtypes of `example`, and also the
    branches that the model's Python takes. So its gradient on `example` is compared with the uncompiled gradient.

    Args:
        objective: parameters that no gradient reaches must be frozen (`uvb.training.objectives.freeze_unused`).
        plan: gives the precision of the trace.
        example: x, noise (B, C, H, W), ε (B, noise_dim), weight (B,).

    Raises:
        RuntimeError: the gradients differ.
        Exception: the tracer or the compiler may raise anything.
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
        # Dynamo refuses after 8 compilations of a function, and a process may train more models than that.
        with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
            _, got = self.differentiated(self.trained, *example)
        _, expected = differentiated(self.trained, *example)
        if not (apart := distance(got, expected)) <= LARGEST_DISTANCE[plan.precision]:  # this form also refuses nan
            raise RuntimeError(f"its gradient differs from the uncompiled one by {apart:.2g} of its norm")

    def forward(self, *batch: Tensor) -> Tensor:
        """The loss of a batch, as `Objective.forward`."""
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
        """`g` is 1 (`loss.backward()`), and multiplying by it would cost one more pass over all weights."""
        gradients, ctx.gradients = ctx.gradients, None  # drop the reference, so that .grad takes them without a copy
        return None, None, *[None] * ctx.inputs, *gradients
