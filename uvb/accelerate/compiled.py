"""Loss and gradients of a step as one compiled graph: forward pass, inner gradient and the backward pass through both."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.fx.experimental.proxy_tensor import make_fx

from uvb.accelerate.gradients import distance
from uvb.plan import Plan, Precision
from uvb.training.objectives import Objective

# How far its gradient may lie from the uncompiled one's, relative: fused kernels round less often.
LARGEST_DISTANCE: dict[Precision, float] = {"fp64": 1e-8, "fp32": 1e-2, "bf16": 5e-2}  # fp32 may be TF32 on a GPU

Differentiated = Callable[..., tuple[Tensor, Sequence[Tensor]]]  # (parameters, *batch) -> loss, gradients


class CompiledObjective(torch.nn.Module):
    """`objective`, its gradients computed in its forward pass and handed out by ``loss.backward()``, called on it directly.

    Traced before it is compiled, so that the compiler meets the derivatives as we write them out (`convolution`);
    left to itself it would differentiate twice by torch's own rules. A trace fixes shapes and dtypes, which are those of
    `example`, and whatever Python the model does: it is held to the uncompiled gradient on `example`, and raises where it
    differs.

    Args:
        objective: parameters that no gradient reaches frozen (`uvb.training.objectives.freeze_unused`).
        plan: its precision is that of the trace.
        example: x, noise (B, C, H, W), ε (B, noise_dim), weight (B,).

    Raises:
        Exception: whatever the tracer or the compiler raises; RuntimeError where the gradient is another.
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
        # Casts are part of the trace: the compiler must not meet autocast again.
        without_autocast = torch.autocast(plan.device, enabled=False)
        self.differentiated: Differentiated = without_autocast(torch.compile(trace, fullgraph=True, dynamic=False))
        # Dynamo keeps 8 compilations of a function and then refuses; a process that trains many models needs more.
        with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
            _, got = self.differentiated(self.trained, *example)
        _, expected = differentiated(self.trained, *example)
        if not (apart := distance(got, expected)) <= LARGEST_DISTANCE[plan.precision]:  # so that nan is refused
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
        """`g` is 1 (`loss.backward()`): multiplying by it would cost one more pass over all weights."""
        gradients, ctx.gradients = ctx.gradients, None  # let go, so that .grad takes them over without a copy
        return None, None, *[None] * ctx.inputs, *gradients
