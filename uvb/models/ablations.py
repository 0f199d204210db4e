"""Ablations for open question 1, not in the paper: UVB and DEEN with one part removed or replaced, and a U-Net energy.

A model with `match` gets wider until its parameter count is UVB's (`uvb.models.capacity`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uvb.config import Widths
from uvb.models.activations import activation as activation_of
from uvb.models.autoencoders import QuadraticEnergy
from uvb.models.base import Energy
from uvb.models.kl import kl_to_standard_normal
from uvb.models.nets import ConvNet
from uvb.models.registry import register_model
from uvb.models.uvb import PAPER_WIDTHS, UVB
from uvb.spec import Shape


@register_model("uvb_no_kl", widths=PAPER_WIDTHS)
class UVBWithoutKL(UVB):
    """f(y) = ‖y - μ_y(z)‖² / 2σ² with z = μ + exp(λ/2) ε: only UVB's reconstruction term."""

    def kl(self, z: Tensor, mu: Tensor, lam: Tensor) -> Tensor:
        return torch.zeros_like(mu[:, 0])


@register_model("uvb_no_reconstruction", widths=PAPER_WIDTHS, match="hidden")
class UVBWithoutReconstruction(Energy):
    """f(y) = KL[q(z|y), N(0, I)]: only UVB's KL term. There is no decoder, and the energy is deterministic."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(sigma)
        self.encoder_mu = ConvNet(shape, widths, widths.latent, activation)
        self.encoder_lambda = ConvNet(shape, widths, widths.latent, activation)

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return kl_to_standard_normal(self.encoder_mu(y).to(y.dtype), self.encoder_lambda(y).to(y.dtype))


@register_model("deen_uvb_encoder", widths=PAPER_WIDTHS, match="hidden")
class DEENWithUVBsEncoder(Energy):
    """f(y) = w · SiLU(encoder(y)): DEEN with a UVB encoder, which has narrow convolutions and wide linear layers."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(sigma)
        self.encoder = ConvNet(shape, widths, widths.latent, activation)
        self.readout = nn.Sequential(activation_of(activation), nn.Linear(widths.latent, 1))

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        value: Tensor = self.readout(self.encoder(y))  # (B, 1)
        return value.squeeze(1).to(y.dtype)


@dataclass(frozen=True)
class UNetConfig:
    """Widths of a U-Net.

    Attributes:
        channels: channels of each level on the way down. The first level has the image's size.
        joined: channels of the last layer on the way up, before the output layer.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    joined: int = 64

    def __str__(self) -> str:
        return "-".join(map(str, self.channels)) + f"/{self.joined}"


class UNet(nn.Module):
    """A U-Net, (B, C, H, W) -> (B, C, H, W).

    On the way down each level halves the sides by average pooling. On the way up each level doubles the sides, and concatenates
    the level of the same size from the way down.
    """

    def __init__(self, shape: Shape, config: UNetConfig, activation: str) -> None:
        super().__init__()
        widths = (shape[0], *config.channels)
        up = (config.joined, *config.channels[1:])
        self.act = activation_of(activation)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(
            nn.Conv2d(skip + below, out, 3, padding=1) for skip, below, out in zip(config.channels, up[1:], up, strict=False)
        )
        self.out = nn.Conv2d(config.joined, shape[0], 3, padding=1)

    def forward(self, y: Tensor) -> Tensor:
        levels: list[Tensor] = []
        for layer in self.down:
            below = F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False) if levels else y
            levels.append(self.act(layer(below)))
        found = levels.pop()
        for layer in reversed(self.up):
            skip = levels.pop()
            found = self.act(layer(torch.cat([skip, F.interpolate(found, size=skip.shape[2:])], 1)))
        pixels: Tensor = self.out(found)
        return pixels


@register_model("unet", widths=UNetConfig(), match=("channels", "joined"))
class UNetEnergy(QuadraticEnergy):
    """f(y) = ‖y - U(y)‖² / 2σ² with a U-Net U."""

    def __init__(self, shape: Shape, config: UNetConfig, activation: str, sigma: float) -> None:
        super().__init__(UNet(shape, config, activation), sigma)
