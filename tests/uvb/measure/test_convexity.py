"""Eq. 21: the exact energy is strongly convex outside a ball, with the constant that the cube gives."""

import math

import pytest
import torch

from uvb.errors import UserError
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.measure.convexity import monotonicity, smallest_monotonicity, sphere, strong_convexity
from uvb.noise import generator, normal

SHAPE = (1, 2, 2)  # d = 4, √d = 2
CORNERS = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)]).double()  # √d apart
DISTANCES = [1.0, 2.1, 4.0, 20.0]


def test_exact_energies_obey_the_bound() -> None:
    """For images in the cube, in every direction, at every distance."""
    train = torch.rand(12, *SHAPE, generator=generator(0, "train"), dtype=torch.float64)
    centers = 0.5 + normal((300, *SHAPE), 0, "centers").double()
    directions = sphere(centers, generator(0, "directions"))
    for sigma in (0.1, 1.0):
        for found in smallest_monotonicity(EmpiricalBayes(train, sigma), centers, directions, torch.empty(300, 0), DISTANCES):
            assert found.smallest >= found.bound
            assert found.pairs == 300


def test_the_bound_is_tight() -> None:
    """Two images in opposite corners and little noise: posterior means at the two ends are √d apart, as the bound fears."""
    energy = EmpiricalBayes(CORNERS, 0.1)
    found = smallest_monotonicity(energy, CORNERS[:1] + 0.5, CORNERS[1:], torch.empty(1, 0), [2.1, 4.0])
    for each in found:
        assert each.smallest == pytest.approx(each.bound, rel=1e-6)
        assert each.bound == pytest.approx(strong_convexity(float(energy.sigma), 4, each.distance))


def test_images_outside_the_cube_break_the_bound() -> None:
    """The same with pixels in [0, 3]: the premise is false, and the measurement shows it."""
    energy = EmpiricalBayes(3 * CORNERS, 0.1)
    (found,) = smallest_monotonicity(energy, CORNERS[:1] + 1.5, CORNERS[1:], torch.empty(1, 0), [4.0])
    assert found.smallest < 0 < found.bound


def test_monotonicity_of_far_points_is_one_over_the_variance() -> None:
    y = normal((5, *SHAPE), 0, "y").double()
    far = y + 1e6
    quotients = monotonicity(EmpiricalBayes(CORNERS, 0.5), y, far, torch.empty(5, 0))
    torch.testing.assert_close(quotients, torch.full((5,), 4.0, dtype=torch.float64), rtol=1e-5, atol=0)


def test_sphere_is_of_unit_norm_and_centered() -> None:
    u = sphere(torch.empty(4000, *SHAPE), generator(0, "sphere"))
    torch.testing.assert_close(u.flatten(1).norm(dim=1), torch.ones(4000))
    assert float(u.mean(0).abs().max()) < 0.05


def test_balls_within_the_cube_are_refused() -> None:
    with pytest.raises(UserError, match="√d"):
        strong_convexity(1.0, 784, math.sqrt(784))
