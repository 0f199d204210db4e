"""The quality of samples: Fréchet distance, precision and recall, density and coverage of their features."""

import math

import torch
from torch import Tensor

from uvb.measure.classifier import EVALUATION_BATCH, Classifier
from uvb.measure.losses import Mean
from uvb.noise import generator

NEIGHBOURS = 5  # k of density and coverage (Naeem et al. 2020)
MANIFOLD = 3  # k of precision and recall (Kynkäänniemi et al. 2019)
MEASURES = ("frechet", "precision", "recall", "density", "coverage")
RESAMPLES = 50  # samples of the bootstrap; 50 give a standard error to 10 %


@torch.no_grad()
def features(classifier: Classifier, images: Tensor) -> Tensor:
    """The classifier's last feature maps, averaged over the image: (N, C, H, W) in [0, 1] -> (N, 64) float64."""
    convolutions = classifier.layers[:-2]  # without flattening and the linear layer
    parts = [convolutions(part - 0.5).mean((2, 3)) for part in images.float().split(EVALUATION_BATCH)]
    return torch.cat(parts).double()


class Quality:
    """Compare features of samples ("fake") with the features `real` (n, f) of real images, by the five `MEASURES`.

    The ball of a feature reaches to its k-th nearest neighbour in the same set.

    - Fréchet distance: ‖m - m'‖² + tr(S + S' - 2 (S S')^½), the squared Wasserstein distance of two Gaussians. It depends on
      the number of images and is above 0 even for equal distributions, so compare only equal numbers of images.
    - Precision: the share of fake features that lie in the ball of a real feature.
    - Recall: the share of real features that lie in the ball of a fake feature.
    - Density: the mean number of balls of real features in which a fake feature lies, divided by k. It is about 1 for equal
      distributions.
    - Coverage: the share of balls of real features that contain a fake feature.
    """

    def __init__(self, real: Tensor, k: int = NEIGHBOURS, k_manifold: int = MANIFOLD) -> None:
        self.real, self.k, self.k_manifold = real, k, k_manifold
        self.mean, self.covariance = real.mean(0), torch.atleast_2d(torch.cov(real.T))
        self.root = _root(self.covariance)
        apart = torch.cdist(real, real)
        self.radii, self.radii_manifold = _radii(apart, k), _radii(apart, k_manifold)

    def __call__(self, groups: Tensor, seed: int = 0) -> list[Mean]:
        """Each measure of fake features (G, m, f), with its standard error by a bootstrap over groups, keyed by `seed`.

        A group has the jumps of one chain. Jumps of a chain are correlated, so the bootstrap draws whole groups. If there is
        only one group, the standard errors are nan.
        """
        count, size = groups.shape[:2]
        drawn = torch.randint(count, (RESAMPLES, count), generator=generator(seed, "quality bootstrap"))
        # Row 0 has every group once. Each other row is a bootstrap sample.
        times = torch.stack([torch.ones(count, dtype=torch.int64), *(row.bincount(minlength=count) for row in drawn)])
        if count < 2:
            times = times[:1]
        found = self._measured(groups.flatten(0, 1), times.repeat_interleave(size, 1).to(groups.device))
        errors = found[1:].std(0) if count > 1 else torch.full((len(MEASURES),), math.nan)
        return [Mean(value, error) for value, error in zip(found[0].tolist(), errors.tolist(), strict=True)]

    def _measured(self, fake: Tensor, times: Tensor) -> Tensor:
        """The measures (R, 5) of R bootstrap samples of fake features (m, f). Sample r has feature i ``times[r, i]`` times."""
        distance, apart = torch.cdist(self.real, fake), torch.cdist(fake, fake)  # (n, m), (m, m)
        precise = (distance <= self.radii_manifold[:, None]).any(0)  # (m,)
        inside = distance <= self.radii[:, None]  # (n, m)
        rows = []
        for count in times:
            total, drawn = int(count.sum()), count > 0
            # Leave out copies of a point. As neighbours of the point they would shrink its ball.
            radii = _radii(apart[drawn][:, drawn], self.k_manifold)
            recall = (distance[:, drawn] <= radii).any(1).double().mean()
            precision = int((count * precise).sum()) / total
            density = int((count * inside.sum(0)).sum()) / (self.k * total)
            coverage = inside[:, drawn].any(1).double().mean()
            rows.append([self._frechet_distance(fake.repeat_interleave(count, 0)), precision, recall, density, coverage])
        return torch.tensor(rows, dtype=torch.float64)

    def _frechet_distance(self, fake: Tensor) -> Tensor:
        covariance = torch.atleast_2d(torch.cov(fake.T))
        cross = _root(self.root @ covariance @ self.root).trace()
        apart = (self.mean - fake.mean(0)).square().sum()
        distance: Tensor = apart + self.covariance.trace() + covariance.trace() - 2 * cross
        return distance


def _radii(distance: Tensor, k: int) -> Tensor:
    """The distance of each point to its k-th nearest other point, (n,), from the matrix (n, n) of all distances."""
    return distance.kthvalue(min(k, len(distance) - 1) + 1, 1).values


def _root(matrix: Tensor) -> Tensor:
    """The square root of a positive semidefinite matrix. Negative eigenvalues, which come from rounding, count as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
