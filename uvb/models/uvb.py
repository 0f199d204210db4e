"""UVB (Sec. 2.3) and variants of it. Its energy is the negative ELBO of a VAE on Y (Eq. 17)."""

import math

from torch import Tensor

from uvb.config import Widths
from uvb.models.base import LatentEnergy
from uvb.models.nets import ConvNet, Decoder
from uvb.models.registry import register_model
from uvb.spec import Shape

PAPER_WIDTHS = Widths(conv=(32, 64, 128), hidden=200, latent=100, decoder=2000)  # Sec. 3.1.1


@register_model("uvb", widths=PAPER_WIDTHS)
class UVB(LatentEnergy):
    """f(y) = ‖y - μ_y(z)‖² / 2σ² + KL[q(z|y), p(z)] with one z = μ + exp(λ/2) ε (Eq. 15-17).

    Two encoders, which share no weights, compute μ and λ. The energy is random, because ε is. For a fixed ε it is a function of
    y alone.
    """

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(sigma)
        self.noise_dim = widths.latent
        self.encoder_mu = ConvNet(shape, widths, widths.latent, activation)
        self.encoder_lambda = ConvNet(shape, widths, widths.latent, activation)
        self.decoder = Decoder(shape, widths, activation)

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # Under autocast the encoders return bf16, but the energy must have the dtype of y.
        return self.encoder_mu(y).to(y.dtype), self.encoder_lambda(y).to(y.dtype)

    def decode(self, z: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(z)
        return pixels.to(z.dtype)

    def reconstruction(self, y: Tensor, mean: Tensor) -> Tensor:
        """-log p(y|z) up to a constant, (B,)."""
        return (y - mean).square().flatten(1).sum(1) / (2 * self.sigma**2)

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        z, mu, lam = self.sample_latent(y, eps)  # (B, d_z) each
        return self.reconstruction(y, self.decode(z)) + self.kl(z, mu, lam)


@register_model("uvb_laplace", widths=PAPER_WIDTHS)
class UVBLaplace(UVB):
    """Remark 4: UVB with a Laplace decoder of scale b = σ. The reconstruction term is ‖y - μ_y(z)‖₁ / b.

    The paper does not say which b it used.
    """

    scale_over_sigma = 1.0

    def reconstruction(self, y: Tensor, mean: Tensor) -> Tensor:
        return (y - mean).abs().flatten(1).sum(1) / (self.scale_over_sigma * self.sigma)


@register_model("uvb_laplace_matched", widths=PAPER_WIDTHS)
class UVBLaplaceMatched(UVBLaplace):
    """Remark 4 with b = σ/√2, at which the Laplace density has variance σ²."""

    scale_over_sigma = 1 / math.sqrt(2)


@register_model("uvb_mean", widths=PAPER_WIDTHS)
class UVBMean(UVB):
    """UVB without sampling: z = μ. The KL term stays. This ablation for open question 1 is not in the paper."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(shape, widths, activation, sigma)
        self.noise_dim = 0

    def sample_latent(self, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, lam = self.encode(y)
        return mu, mu, lam
