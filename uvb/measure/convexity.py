"""Strong convexity outside a ball (Eq. 21): measure it on pairs of points, and compare with the bound for exact energies."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy


class Monotonicity(NamedTuple):
    """The smallest quotient ⟨∇f(y) - ∇f(y'), y - y'⟩ / ‖y - y'‖² of several pairs at one distance R, and a lower bound.

    `bound` is (1 - √d/R) / σ². It holds for the exact energy of any X in [0, 1]^d: there ∇f(y) = (y - x̂(y))/σ², and two
    posterior means lie in the cube, at most √d apart. For R below √d the bound is negative.
    """

    distance: float
    smallest: float
    bound: float
    pairs: int


@torch.no_grad()
def monotonicity(energy: Energy, y: Tensor, other: Tensor, eps: Tensor) -> Tensor:
    """⟨∇f(y) - ∇f(y'), y - y'⟩ / ‖y - y'‖² of pairs (B, C, H, W) -> (B,). Both ends share one ε, (B, noise_dim)."""
    difference = (y - other).flatten(1)  # (B, d)
    gradients = (energy.gradient(y, eps) - energy.gradient(other, eps)).flatten(1)
    return (gradients * difference).sum(1) / difference.square().sum(1)


def smallest_monotonicity(
    energy: Energy, centers: Tensor, directions: Tensor, eps: Tensor, distances: list[float]
) -> list[Monotonicity]:
    """The smallest quotient of Eq. 21 at each distance, over pairs c ± (distance/2) u.

    Args:
        centers: (B, C, H, W), e.g. noisy images.
        directions: (B, C, H, W), not zero; they are scaled to unit vectors u. `sphere` gives random directions. An energy is
            least convex along differences of images.
        eps: (B, noise_dim), shared by both ends of a pair.
        distances: values of ‖y - y'‖, each above 0.

    Raises:
        UserError: a distance is not above 0.
    """
    d, sigma = centers[0].numel(), float(energy.sigma)
    unit, found = _unit(directions), []
    for distance in distances:
        if not distance > 0:
            raise UserError(f"distance {distance}: the distance of two points must be above 0")
        step = 0.5 * distance * unit
        quotients = monotonicity(energy, centers + step, centers - step, eps)
        bound = (1 - math.sqrt(d) / distance) / sigma**2
        found.append(Monotonicity(distance, float(quotients.min()), bound, len(quotients)))
    return found


def sphere(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random unit vectors, uniform on the sphere, in the shape of `like`: one for each image."""
    return _unit(torch.randn(like.shape, generator=generator, device=generator.device).to(like))


def _unit(directions: Tensor) -> Tensor:
    return F.normalize(directions.flatten(1), dim=1).reshape(directions.shape)
