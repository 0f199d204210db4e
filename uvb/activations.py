"""Activation functions by name. A smooth one matters: the loss differentiates the energy twice (footnote 3)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from uvb import cpu
from uvb.errors import UserError


class SiLU(nn.SiLU):
    """x times the logistic function of x; with derivatives written out where `uvb.cpu` applies."""

    def forward(self, x: Tensor) -> Tensor:
        return cpu.silu(x) if x.dtype is torch.bfloat16 and cpu.applies(x) else super().forward(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": SiLU,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
}


def activation(name: str) -> nn.Module:
    """A fresh activation module.

    Raises:
        UserError: for an unknown name.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name!r}; choose one of: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]()
