"""Gaussian mixtures of images. Their density, score and Bayes estimator have closed forms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy


@dataclass(frozen=True)
class GaussianMixture:
    """X ~ Σ_k weights_k N(means_k, diag variances_k).

    Attributes:
        weights: (K,), positive, summing to 1.
        means: (K, C, H, W).
        variances: (K,) for isotropic components, or (K, C, H, W). A component with variance 0 is a point mass.

    Raises:
        UserError: the shapes do not fit, a weight is not positive, the weights do not sum to 1, or a variance is negative.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __post_init__(self) -> None:
        k = len(self.means)
        if self.weights.shape != (k,) or self.variances.shape not in ((k,), self.means.shape):
            raise UserError(
                f"mixture with means {tuple(self.means.shape)}: weights must be ({k},), not {tuple(self.weights.shape)}; "
                f"variances must be ({k},) or have the means' shape, not {tuple(self.variances.shape)}"
            )
        if bool((self.weights <= 0).any()) or abs(float(self.weights.sum()) - 1) > 1e-5:
            raise UserError(
                f"mixture weights sum to {float(self.weights.sum()):g}, and the smallest is {float(self.weights.min()):g}; "
                "they must sum to 1 and be above 0"
            )
        if bool((self.variances < 0).any()):
            raise UserError(f"the smallest mixture variance is {float(self.variances.min()):g}; variances must be 0 or more")

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.means.shape[1:])

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n clean images, (n, C, H, W)."""
        device = generator.device
        k = torch.multinomial(self.weights.to(device), n, replacement=True, generator=generator).to(self.means.device)
        normal = torch.randn(n, *self.shape, generator=generator, device=device)
        return self.means[k] + self._variances()[k].sqrt().reshape(n, *self.shape) * normal.to(self.means)

    def log_prob(self, y: Tensor, sigma: float) -> Tensor:
        """log p(y) of Y = X + N(0, σ² I), in nats: (B, C, H, W) -> (B,)."""
        return self._log_joint(y, sigma).logsumexp(1)

    def posterior_mean(self, y: Tensor, sigma: float) -> Tensor:
        """The Bayes estimator E[X | Y = y] (Eq. 1): (B, C, H, W) -> (B, C, H, W)."""
        r = self._log_joint(y, sigma).softmax(1)  # (B, K)
        return (r[:, :, None] * self._component_means(y, sigma)).sum(1).reshape(y.shape)

    def score(self, y: Tensor, sigma: float) -> Tensor:
        """∇ log p(y): (B, C, H, W) -> (B, C, H, W). The formula does not use `posterior_mean`, so a test can check Eq. 2."""
        r = self._log_joint(y, sigma).softmax(1)  # (B, K)
        pull = (self._means() - y.flatten(1)[:, None]) / (self._variances() + sigma**2)  # (B, K, d)
        return (r[:, :, None] * pull).sum(1).reshape(y.shape)

    def energy(self, sigma: float) -> "MixtureEnergy":
        """The exact energy -log p(y) at noise level `sigma`."""
        return MixtureEnergy(self, sigma)

    def _means(self) -> Tensor:
        return self.means.flatten(1)  # (K, d)

    def _variances(self) -> Tensor:
        if self.variances.dim() == 1:
            return self.variances[:, None].expand(len(self.means), self.means[0].numel())  # (K, d)
        return self.variances.flatten(1)

    def _component_means(self, y: Tensor, sigma: float) -> Tensor:
        """E[X | Y = y, k], (B, K, d)."""
        v = self._variances()
        return (v * y.flatten(1)[:, None] + sigma**2 * self._means()) / (v + sigma**2)

    def _log_joint(self, y: Tensor, sigma: float) -> Tensor:
        """log weights_k + log N(y; means_k, diag variances_k + σ² I), (B, K)."""
        total = self._variances() + sigma**2  # (K, d)
        squares = ((y.flatten(1)[:, None] - self._means()).square() / total).sum(2)  # (B, K)
        return self.weights.log() - 0.5 * (squares + torch.log(2 * math.pi * total).sum(1))


class MixtureEnergy(Energy):
    """f(y) = -log p(y) of a mixture with noise. It is deterministic, and its gradient has a closed form: minus the score."""

    def __init__(self, mixture: GaussianMixture, sigma: float) -> None:
        super().__init__(sigma)
        self.mixture = mixture

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return -self.mixture.log_prob(y, float(self.sigma))

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        return -self.mixture.score(y, float(self.sigma))
