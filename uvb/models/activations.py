"""Activation functions by name. They should be smooth, because the loss differentiates the energy twice (footnote 3)."""

from collections.abc import Callable

from torch import Tensor, nn

from uvb.accelerate import silu
from uvb.errors import UserError


class SiLU(nn.SiLU):
    """x times the logistic function of x. In bf16 on a CPU it uses `uvb.accelerate.silu`, which has faster derivatives."""

    def forward(self, x: Tensor) -> Tensor:
        return silu.silu(x) if silu.applies(x) else super().forward(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"silu": SiLU, "relu": nn.ReLU, "softplus": nn.Softplus, "gelu": nn.GELU}


def activation(name: str) -> nn.Module:
    """A new activation module. Raises `UserError` for an unknown name."""
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name!r}; choose one of: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]()
