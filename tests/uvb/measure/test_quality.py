"""Quality measures, on samples with known values."""

import math

import pytest
import torch
from torch import Tensor

from uvb.measure.classifier import Classifier
from uvb.measure.quality import MEASURES, Quality, features
from uvb.noise import generator, normal


def measured(real: Tensor, fake: Tensor, *neighbours: int) -> dict[str, float]:
    """Each measure of fake features (m, f), without its error."""
    return {name: mean.value for name, mean in zip(MEASURES, Quality(real, *neighbours)(fake[None]), strict=True)}


def test_frechet_distance_of_gaussians() -> None:
    """If the covariances are diag(s²), the distance is ‖m - m'‖² + Σ (s - s')². These samples have exactly such moments."""
    z = normal((4000, 3), 0, "z").double()
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T  # mean 0 and covariance I, exactly
    spread, shift = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 0.0, -1.0]).double()
    assert measured(z, shift + spread * z)["frechet"] == pytest.approx(10 + 0 + 1 + 0.25)
    assert measured(z, z)["frechet"] == pytest.approx(0, abs=1e-9)
    turn = torch.linalg.qr(normal((3, 3), 0, "turn").double()).Q
    assert measured((spread * z) @ turn, z @ turn)["frechet"] == pytest.approx(1.25)


def test_neighbour_measures_match_a_count_by_hand() -> None:
    """Real points lie at 0, 1, 2 and 10 on a line. For k = 1 their radii are 1, 1, 1 and 8. Fake points lie at 0.5 and 20."""
    real, fake = (torch.tensor(v).double()[:, None] for v in ([0.0, 1.0, 2.0, 10.0], [0.5, 20.0]))
    found = measured(real, fake, 1, 1)
    assert found["precision"] == 0.5  # 0.5 lies in the balls of 0 and 1; 20 in none
    assert found["recall"] == 1.0  # both balls of the fake have radius 19.5
    assert found["density"] == pytest.approx((2 + 0) / 2)
    assert found["coverage"] == 0.5


def test_quality_of_samples_that_are_alike_far_away_or_collapsed() -> None:
    g = generator(0, "features")
    real, alike = (torch.randn(600, 8, generator=g, dtype=torch.float64) for _ in range(2))
    distance, precision, recall, density, coverage = measured(real, alike).values()
    assert distance < 0.3
    assert precision > 0.85
    assert recall > 0.85
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.95
    assert list(measured(real, alike + 20).values())[1:] == [0, 0, 0, 0]
    collapsed = measured(real, 0.01 * alike)
    assert collapsed["precision"] == 1
    assert collapsed["recall"] < 0.1
    assert collapsed["coverage"] < 0.5


def test_bootstrap_of_precision_is_its_standard_error_over_groups() -> None:
    """Half of 20 groups lie within the real features. So precision is a mean of 20 zeros and ones, with the error 0.5/√20."""
    g = generator(0, "features")
    real = torch.randn(200, 2, generator=g, dtype=torch.float64)
    groups = 0.1 * torch.randn(20, 7, 2, generator=g, dtype=torch.float64)
    groups[::2] += 100
    precision = Quality(real)(groups)[MEASURES.index("precision")]
    assert precision.value == 0.5
    assert precision.stderr == pytest.approx(0.5 / math.sqrt(20), rel=0.3)
    assert Quality(real)(groups) == Quality(real)(groups)
    assert Quality(real)(groups) != Quality(real)(groups, seed=1)
    assert all(math.isnan(mean.stderr) for mean in Quality(real)(groups[:1]))


def test_bootstrap_does_not_take_a_copy_for_a_neighbour() -> None:
    """If a bootstrap draws a chain twice, each point has a copy at distance 0. It must not make the point's ball smaller."""
    real = torch.arange(12.0).double()[:, None]
    recall = Quality(real, 1, 1)(torch.stack([real, real + 0.25]))[MEASURES.index("recall")]
    assert (recall.value, recall.stderr) == (1.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_features_are_64_numbers_an_image(shape: tuple[int, int, int]) -> None:
    found = features(Classifier(shape, 10), torch.rand(5, *shape, generator=generator(0, "x")))
    assert found.shape == (5, 64)
    assert found.dtype == torch.float64
