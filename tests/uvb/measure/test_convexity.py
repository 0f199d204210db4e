"""Eq. 21: if all pixels lie in [0, 1], the exact energy is strongly convex outside a ball, with a known constant."""

import pytest
import torch

from uvb.errors import UserError
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.measure.convexity import monotonicity, smallest_monotonicity, sphere
from uvb.noise import generator, normal

SHAPE = (1, 2, 2)  # d = 4, √d = 2
CORNERS = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)]).double()  # √d apart
DISTANCES = [1.0, 2.1, 4.0, 20.0]


def test_bound_holds_for_exact_energies() -> None:
    """For images in the cube [0, 1]^d, the lower bound of Eq. 21 holds in every direction and at every distance."""
    train = torch.rand(12, *SHAPE, generator=generator(0, "train"), dtype=torch.float64)
    centers = 0.5 + normal((300, *SHAPE), 0, "centers").double()
    directions = sphere(centers, generator(0, "directions"))
    for sigma in (0.1, 1.0):
        for found in smallest_monotonicity(EmpiricalBayes(train, sigma), centers, directions, torch.empty(300, 0), DISTANCES):
            assert found.smallest >= found.bound
            assert found.pairs == 300


def test_bound_is_reached_by_two_opposite_corners() -> None:
    """The images are two opposite corners, and σ is small. So the posterior means of two points are up to √d apart."""
    energy = EmpiricalBayes(CORNERS, 0.1)
    found = smallest_monotonicity(energy, CORNERS[:1] + 0.5, CORNERS[1:], torch.empty(1, 0), [2.1, 4.0])
    for each in found:
        assert each.smallest == pytest.approx(each.bound, rel=1e-6)
        assert each.bound == pytest.approx((1 - 2 / each.distance) / 0.1**2)


def test_bound_fails_for_images_outside_the_cube() -> None:
    """Pixels in [0, 3] are outside the cube, so the bound's premise is false."""
    energy = EmpiricalBayes(3 * CORNERS, 0.1)
    (found,) = smallest_monotonicity(energy, CORNERS[:1] + 1.5, CORNERS[1:], torch.empty(1, 0), [4.0])
    assert found.smallest < 0 < found.bound


def test_monotonicity_of_far_points_is_one_over_the_variance() -> None:
    y = normal((5, *SHAPE), 0, "y").double()
    far = y + 1e6
    quotients = monotonicity(EmpiricalBayes(CORNERS, 0.5), y, far, torch.empty(5, 0))
    torch.testing.assert_close(quotients, torch.full((5,), 4.0, dtype=torch.float64), rtol=1e-5, atol=0)


def test_sphere_has_unit_norm_and_mean_zero() -> None:
    u = sphere(torch.empty(4000, *SHAPE), generator(0, "sphere"))
    torch.testing.assert_close(u.flatten(1).norm(dim=1), torch.ones(4000))
    assert float(u.mean(0).abs().max()) < 0.05


def test_smallest_monotonicity_refuses_a_distance_of_zero() -> None:
    with pytest.raises(UserError, match="the distance of two points must be above 0"):
        smallest_monotonicity(EmpiricalBayes(CORNERS, 0.5), CORNERS, CORNERS, torch.empty(2, 0), [0.0])
