"""The Gaussian with the mean and covariance of Y. Annealing starts from it, and likelihoods are compared with it."""

import math

import torch
from torch import Tensor

from uvb.data import ImageSet
from uvb.exact.baselines import principal_axes
from uvb.models.base import Energy


class GaussianFit(Energy):
    """f(y) = -log N(y; m, S) in nats, normalized, with S = U diag(v) Uᵀ. It is deterministic.

    Args:
        mean: m, (C, H, W).
        axes: U, (d, d), the principal axes as columns.
        variances: v, (d,), each above 0.
        sigma: the noise level of Y.
    """

    def __init__(self, mean: Tensor, axes: Tensor, variances: Tensor, sigma: float) -> None:
        super().__init__(sigma)
        self.mean, self.axes, self.variances = mean, axes, variances
        self.constant = 0.5 * float((2 * math.pi * variances.double()).log().sum())

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return (self._coordinates(y).square() / (2 * self.variances)).sum(1) + self.constant

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        return ((self._coordinates(y) / self.variances) @ self.axes.T).reshape(y.shape)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws, (n, C, H, W)."""
        normal = torch.randn(n, len(self.variances), generator=generator, device=generator.device).to(self.mean)
        return self.mean + ((normal * self.variances.sqrt()) @ self.axes.T).reshape(n, *self.mean.shape)

    def _coordinates(self, y: Tensor) -> Tensor:
        return (y - self.mean).flatten(1) @ self.axes  # (B, d)


def fit_gaussian(images: ImageSet, sigma: float, train_images: int, like: Tensor) -> GaussianFit:
    """Fit a Gaussian to Y = X + N(0, σ² I), where X is uniform on the first `train_images` training images.

    Its mean is the mean of these images, and its covariance is their covariance + σ² I. Its tensors have the dtype and the
    device of `like`.
    """
    mean, variances, axes = principal_axes(images.train[:train_images], images.levels)
    return GaussianFit(mean.reshape(images.shape).to(like), axes.to(like), (variances + sigma**2).to(like), sigma)
