"""Prepare a trained energy, with fixed weights, for long Markov chains."""

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
    """A copy of `energy` that gives the same numbers in less time. `energy` must have the plan's device and dtype.

    In bf16 the weights of networks are cast only once. Autocast would cast them at every call, and with few chains the casts
    would be most of the work. If the energy also uses a network's weight elsewhere, e.g. in a penalty, it uses the rounded
    weight. If the plan has a CUDA graph, one graph for each shape computes ∇f under `torch.no_grad`.
    """

    def __init__(self, energy: Energy, plan: Plan) -> None:
        super().__init__(float(energy.sigma))
        self.sigma = energy.sigma.clone()
        self.noise_dim, self.plan = energy.noise_dim, plan
        self.held = copy.deepcopy(energy).requires_grad_(False)
        if plan.precision == "bf16":
            for net in self.held.modules():
                if isinstance(net, (ConvNet, Decoder)):  # other modules may need their weights in full precision
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
        return gradient.clone()  # the next call overwrites this memory

    def value_and_gradient(self, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        with self.plan.autocast():
            return self.held.value_and_gradient(y, eps)

    def _gradient(self, y: Tensor, eps: Tensor) -> tuple[Tensor]:
        with self.plan.autocast():
            return (self.held.gradient(y, eps),)
