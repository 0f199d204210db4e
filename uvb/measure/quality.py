"""How good samples are: Fréchet distance, precision and recall, density and coverage, of features. Own code, four formulas."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from uvb.measure.classifier import EVALUATION_BATCH, Classifier
from uvb.measure.losses import Mean

NEIGHBOURS, MANIFOLD = 5, 3  # k of density and coverage (Naeem et al. 2020), of precision and recall (Kynkäänniemi et al. 2019)
MEASURES = ("frechet", "precision", "recall", "density", "coverage")


@torch.no_grad()
def features(classifier: Classifier, images: Tensor) -> Tensor:
    """The classifier's last convolutions, averaged over the image: (N, C, H, W) in [0, 1] -> (N, 64) float64."""
    convolutions = classifier.layers[:-2]  # without the readout
    parts = [convolutions(part - 0.5).mean((2, 3)) for part in images.float().split(EVALUATION_BATCH)]
    return torch.cat(parts).double()


class Quality:
    """The five `MEASURES` of fake features (m, f) against real ones (n, f); what depends on the real ones is kept."""

    def __init__(self, real: Tensor, k: int = NEIGHBOURS, k_manifold: int = MANIFOLD) -> None:
        self.real, self.k, self.k_manifold = real, k, k_manifold
        self.mean, self.covariance = real.mean(0), torch.atleast_2d(torch.cov(real.T))
        self.root = _root(self.covariance)
        self.radii, self.radii_manifold = _radii(real, k), _radii(real, k_manifold)

    def __call__(self, fake: Tensor) -> tuple[float, ...]:
        return (self.frechet_distance(fake), *self.precision_recall(fake), *self.density_coverage(fake))

    def frechet_distance(self, fake: Tensor) -> float:
        """‖m - m'‖² + tr(S + S' - 2 (S S')^½): the squared Wasserstein distance of two Gaussians.

        With finite samples it is above 0 even for equal distributions, so compare only equal numbers of them.
        """
        covariance = torch.atleast_2d(torch.cov(fake.T))
        cross = _root(self.root @ covariance @ self.root).trace()
        apart = (self.mean - fake.mean(0)).square().sum()
        return float(apart + self.covariance.trace() + covariance.trace() - 2 * cross)

    def precision_recall(self, fake: Tensor) -> tuple[float, float]:
        """The share of fake features within the real ones' nearest-neighbour balls, and of real ones within the fake ones'."""
        distance = torch.cdist(self.real, fake)  # (n, m)
        inside, covered = distance <= self.radii_manifold[:, None], distance <= _radii(fake, self.k_manifold)[None]
        return float(inside.any(0).double().mean()), float(covered.any(1).double().mean())

    def density_coverage(self, fake: Tensor) -> tuple[float, float]:
        """In how many real balls a fake feature lies, over k (about 1 if alike); the share of balls with a fake one inside."""
        inside = torch.cdist(self.real, fake) <= self.radii[:, None]  # (n, m)
        return float(inside.double().sum(0).mean() / self.k), float(inside.any(1).double().mean())


def jackknife(measure: Callable[[Tensor], Sequence[float]], groups: Tensor) -> list[Mean]:
    """Each value of `measure` on all groups (G, m, f), with the error over leaving out one group at a time.

    A group is a chain, whose jumps depend on one another. A bootstrap would draw points twice, and a point's nearest
    neighbour would then be itself, so the balls would be wrong.
    """
    whole, count = measure(groups.flatten(0, 1)), len(groups)
    if count < 2:
        return [Mean(value, math.nan) for value in whole]
    left = [measure(torch.cat([groups[:g], groups[g + 1 :]]).flatten(0, 1)) for g in range(count)]
    spread = torch.tensor(left, dtype=torch.float64).var(0, correction=0) * (count - 1)
    return [Mean(value, math.sqrt(s)) for value, s in zip(whole, spread.tolist(), strict=True)]


def _radii(points: Tensor, k: int) -> Tensor:
    """Each point's distance to its k-th nearest other point, (n,)."""
    return torch.cdist(points, points).kthvalue(min(k, len(points) - 1) + 1, 1).values


def _root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric matrix without negative eigenvalues (but for rounding)."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
