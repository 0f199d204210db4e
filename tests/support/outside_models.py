"""Models like those of a plug-in package: a U-Net energy with its own config, and UVB with other priors."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uvb import Energy, Widths, register_model
from uvb.models.kl import kl_to_standard_normal
from uvb.models.uvb import PAPER_WIDTHS, UVB


@dataclass(frozen=True)
class UNetConfig:
    """How many channels each layer has."""

    channels: tuple[int, ...] = (16, 32)  # of the layers at the image's size, and at half of it
    joined: int = 64  # of the layer that joins these two


@register_model("outside_unet", widths=UNetConfig(), match=("channels", "joined"))
class UNetEnergy(Energy):
    """f(y) = ½‖y - g(y)‖², where g is a U-Net with one skip connection."""

    def __init__(self, shape: tuple[int, int, int], config: UNetConfig, activation: str, sigma: float) -> None:
        super().__init__(sigma)
        top, low = config.channels
        self.first = nn.Conv2d(shape[0], top, 3, padding=1)
        self.deep = nn.Conv2d(top, low, 3, padding=1)
        self.join = nn.Conv2d(top + low, config.joined, 3, padding=1)
        self.out = nn.Conv2d(config.joined, shape[0], 3, padding=1)

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        high = nn.functional.silu(self.first(y))
        half = nn.functional.silu(self.deep(nn.functional.avg_pool2d(high, 2)))
        half = nn.functional.interpolate(half, size=high.shape[2:])
        out = self.out(nn.functional.silu(self.join(torch.cat([high, half], 1))))
        return 0.5 * (y - out).square().flatten(1).sum(1)


@register_model("uvb_learned_mean", widths=PAPER_WIDTHS)
class UVBLearnedMean(UVB):
    """UVB with the prior N(m, I). The mean m is learned."""

    start = 0.0

    def __init__(self, shape: tuple[int, int, int], widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(shape, widths, activation, sigma)
        self.prior_mean = nn.Parameter(torch.full((widths.latent,), self.start))

    def kl(self, z: Tensor, mu: Tensor, lam: Tensor) -> Tensor:
        return kl_to_standard_normal(mu - self.prior_mean, lam)


@register_model("uvb_mixture", widths=PAPER_WIDTHS)
class UVBMixture(UVBLearnedMean):
    """UVB with the prior ½ N(m, I) + ½ N(-m, I). The mean m is learned. The KL has no closed form and is estimated at z."""

    start = 1.0

    def kl(self, z: Tensor, mu: Tensor, lam: Tensor) -> Tensor:
        posterior = torch.distributions.Normal(mu, torch.exp(lam / 2)).log_prob(z).sum(1)
        parts = [torch.distributions.Normal(sign * self.prior_mean, 1.0).log_prob(z).sum(1) for sign in (1, -1)]
        return posterior - torch.stack(parts).logsumexp(0) + torch.log(torch.tensor(2.0))
