"""Measures of samples, where their values are known."""

import math

import pytest
import torch

from uvb.measure.classifier import Classifier
from uvb.measure.quality import Quality, features, jackknife
from uvb.noise import generator, normal


def test_frechet_distance_of_gaussians() -> None:
    """‖m - m'‖² + Σ (s - s')² where covariances are diag(s²), from their exact sample moments."""
    z = normal((4000, 3), 0, "z").double()
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T  # mean 0 and covariance I, exactly
    spread, shift = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 0.0, -1.0]).double()
    assert Quality(z).frechet_distance(shift + spread * z) == pytest.approx(10 + 0 + 1 + 0.25)
    assert Quality(z).frechet_distance(z) == pytest.approx(0, abs=1e-9)
    turn = torch.linalg.qr(normal((3, 3), 0, "turn").double()).Q
    assert Quality((spread * z) @ turn).frechet_distance(z @ turn) == pytest.approx(1.25)


def test_neighbour_measures_by_hand() -> None:
    """Real at 0, 1, 2, 10 on a line with k = 1: radii 1, 1, 1, 8. Fake at 0.5, 20."""
    real, fake = (torch.tensor(v).double()[:, None] for v in ([0.0, 1.0, 2.0, 10.0], [0.5, 20.0]))
    precision, recall = Quality(real, 1, 1).precision_recall(fake)
    assert precision == 0.5  # 0.5 lies in the balls of 0 and 1; 20 in none
    assert recall == 1.0  # both balls of the fake have radius 19.5
    density, coverage = Quality(real, 1, 1).density_coverage(fake)
    assert density == pytest.approx((2 + 0) / 2)
    assert coverage == 0.5


def test_measures_of_samples_alike_apart_and_collapsed() -> None:
    g = generator(0, "features")
    real, alike = (torch.randn(600, 8, generator=g, dtype=torch.float64) for _ in range(2))
    distance, precision, recall, density, coverage = Quality(real)(alike)
    assert distance < 0.3
    assert precision > 0.85
    assert recall > 0.85
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.95
    assert Quality(real)(alike + 20)[1:] == (0, 0, 0, 0)
    collapsed = Quality(real)(0.01 * alike)
    assert collapsed[1] == 1
    assert collapsed[2] < 0.1
    assert collapsed[4] < 0.5


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Over groups, whose values are as one: √(variance of group means / groups)."""
    groups = normal((20, 1, 1), 0, "groups").double().expand(20, 7, 1)
    (found,) = jackknife(lambda points: [float(points.mean())], groups)
    assert found.value == pytest.approx(float(groups.mean()))
    assert found.stderr == pytest.approx(float(groups[:, 0, 0].std()) / math.sqrt(20))
    assert math.isnan(jackknife(lambda points: [float(points.mean())], groups[:1])[0].stderr)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_features_are_64_numbers_an_image(shape: tuple[int, int, int]) -> None:
    found = features(Classifier(shape, 10), torch.rand(5, *shape, generator=generator(0, "x")))
    assert found.shape == (5, 64)
    assert found.dtype == torch.float64
