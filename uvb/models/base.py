"""Base classes: estimators of X given Y = y, and energies, which define estimators (Eq. 1-3)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from uvb.accelerate.convolution import inner_gradient
from uvb.compat import inside_transform
from uvb.models.kl import kl_to_standard_normal
from uvb.spec import RunSpec


class Estimator(nn.Module, ABC):
    """A map from a noisy image to an estimate of the clean image: ``(y, eps) -> x_hat``.

    Attributes:
        sigma: noise level, a scalar buffer, in units of pixels in [0, 1].
        spec: the spec of the model's training. `uvb.models.io.load` sets it. A model that was not loaded does not have it.
        noise_dim: the number of columns of `eps`, the standard normal numbers that a stochastic estimator needs. 0: the
            estimator is deterministic.
    """

    sigma: Tensor
    spec: RunSpec
    noise_dim: int = 0

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.register_buffer("sigma", torch.tensor(sigma, dtype=torch.float64))

    @abstractmethod
    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        """(B, C, H, W), (B, noise_dim) -> (B, C, H, W)."""


class Energy(Estimator):
    """f(y) = -log p(y) up to a constant. As an estimator it is the empirical Bayes estimator of Eq. 3."""

    @abstractmethod
    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        """(B, C, H, W), (B, noise_dim) -> (B,), in nats."""

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        """∇_y f(y) of each image, (B, C, H, W). This is the gradient of the sum over the batch, because images do not interact.

        The result can be differentiated again with respect to y and the weights. Under `torch.no_grad` it cannot, because
        autograd then records no graph of the gradient. This saves memory and time.
        """
        again = torch.is_grad_enabled()
        if not inside_transform() and (y.device.type == "cpu" or not again):
            # `torch.func.vjp` below gives the same bits, but takes 1.5 times as long on small batches.
            with torch.enable_grad(), inner_gradient():
                leaf = y if y.requires_grad and again else y.detach().requires_grad_()
                return torch.autograd.grad(self.energy(leaf, eps).sum(), leaf, create_graph=again)[0]
        pair = torch.func.vjp(lambda y: self.energy(y, eps).sum(), y)
        total, pull_back = cast(tuple[Tensor, Callable[[Tensor], tuple[Tensor]]], pair)
        return pull_back(torch.ones_like(total))[0]

    def value_and_gradient(self, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """f(y) (B,) and ∇f(y) (B, C, H, W), from one pass through the network. Neither can be differentiated again."""
        if type(self).gradient is not Energy.gradient:  # the model has a gradient in closed form
            return self.energy(y, eps), self.gradient(y, eps)
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            energy = self.energy(leaf, eps)
            return energy.detach(), torch.autograd.grad(energy.sum(), leaf)[0]

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        """x̂(y) = y - σ² ∇f(y), Eq. 3."""
        return y - self.sigma**2 * self.gradient(y, eps)


class LatentEnergy(Energy):
    """An energy built on an encoder q(z|y), a decoder μ_y(z) and a prior p(z)."""

    @abstractmethod
    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean μ and log-variance λ of q(z|y), each (B, d_z)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """μ_y(z): (B, d_z) -> (B, C, H, W)."""

    def sample_latent(self, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z, μ and λ, each (B, d_z), with z = μ + exp(λ/2) ε (the reparametrization of Eq. 16)."""
        mu, lam = self.encode(y)
        return mu + torch.exp(0.5 * lam) * eps, mu, lam

    def kl(self, z: Tensor, mu: Tensor, lam: Tensor) -> Tensor:
        """KL[q(z|y), p(z)] in nats, (B, d_z) each -> (B,). Here the prior is N(0, I), Eq. 15.

        A model with another prior overrides this method. If its KL has no closed form, it may return the unbiased estimate
        log q(z|y) - log p(z) at the sample `z`.
        """
        return kl_to_standard_normal(mu, lam)


def draw_latent_noise(estimator: Estimator, batch: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """ε ~ N(0, I) of shape (batch, noise_dim) for `estimator`, in the dtype and on the device of `like`."""
    eps = torch.randn(batch, estimator.noise_dim, generator=generator, device=generator.device)
    return eps.to(like)
