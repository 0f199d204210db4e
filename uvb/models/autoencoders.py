"""Models for the paper's open question 1: how much of UVB's gain comes from the autoencoder, and how much from the energy?"""

from torch import Tensor, nn

from uvb.config import Widths
from uvb.models.base import Energy, Estimator
from uvb.models.nets import ConvNet, Decoder
from uvb.models.registry import register_model
from uvb.models.uvb import PAPER_WIDTHS
from uvb.spec import Shape

# UVB has two encoders but these models have one, so `match` widens their hidden layer until the parameter counts are equal.


class Autoencoder(nn.Module):
    """g(y) = decoder(encoder(y)), (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, shape: Shape, widths: Widths, activation: str) -> None:
        super().__init__()
        self.encoder = ConvNet(shape, widths, widths.latent, activation)
        self.decoder = Decoder(shape, widths, activation)

    def forward(self, y: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(self.encoder(y))
        return pixels.to(y.dtype)


@register_model("direct", widths=PAPER_WIDTHS, match="hidden")
class DirectDenoiser(Estimator):
    """x̂(y) = g(y). There is no energy, so training needs only first derivatives."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(sigma)
        self.g = Autoencoder(shape, widths, activation)

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        x_hat: Tensor = self.g(y)
        return x_hat


class QuadraticEnergy(Energy):
    """f(y) = ‖y - g(y)‖² / 2σ², in nats, with a network g: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, g: nn.Module, sigma: float) -> None:
        super().__init__(sigma)
        self.g = g

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        g: Tensor = self.g(y)
        return (y - g.to(y.dtype)).square().flatten(1).sum(1) / (2 * self.sigma**2)


@register_model("quadratic_ae", widths=PAPER_WIDTHS, match="hidden")
class QuadraticAutoencoder(QuadraticEnergy):
    """UVB's reconstruction term with a deterministic code, and without the KL term."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(Autoencoder(shape, widths, activation), sigma)
