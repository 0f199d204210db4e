"""An energy whose weights no longer change, held as a long walk wants it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.cuda_graph import Graphed
from uvb.models.base import Energy
from uvb.models.nets import ConvNet, Decoder
from uvb.plan import Plan


class Frozen(Energy):
    """`energy`, which lies on the plan's device in its dtype, as `plan` runs it: the same numbers in less time. A copy.

    The nets' weights are cast once, where autocast would cast them at every call: for few chains that is most of the work.
    (An energy that reads such a net's weights by itself, say to penalize them, reads them rounded.) With a plan that has a
    CUDA graph, ∇f is one, for each shape that is asked for, under `torch.no_grad`.
    """

    def __init__(self, energy: Energy, plan: Plan) -> None:
        super().__init__(float(energy.sigma))
        self.sigma = energy.sigma.clone()
        self.noise_dim, self.plan = energy.noise_dim, plan
        self.held = copy.deepcopy(energy).requires_grad_(False)
        if plan.precision == "bf16":
            for net in self.held.modules():
                if isinstance(net, (ConvNet, Decoder)):  # of other modules it is not known how they use their weights
                    net.to(torch.bfloat16)
        self._graphs: dict[tuple[Any, ...], Callable[[Tensor, Tensor], tuple[Tensor | None, ...]]] = {}

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        with self.plan.autocast():
            return self.held.energy(y, eps)

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        with self.plan.autocast():
            estimate: Tensor = self.held(y, eps)
        return estimate

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        if not self.plan.graph or torch.is_grad_enabled():
            return self._gradient(y, eps)[0]
        graphed = self._graphs.setdefault((y.shape, eps.shape, y.dtype), Graphed(self._gradient))
        gradient = graphed(y, eps)[0]
        assert gradient is not None
        return gradient.clone()  # the next chains' gradient is written where this one lies

    def value_and_gradient(self, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        with self.plan.autocast():
            return self.held.value_and_gradient(y, eps)

    def _gradient(self, y: Tensor, eps: Tensor) -> tuple[Tensor]:
        with self.plan.autocast():
            return (self.held.gradient(y, eps),)
