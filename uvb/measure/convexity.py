"""Strong convexity outside a ball (Eq. 21): the constant of the exact energy, and what an energy shows."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy


class Monotonicity(NamedTuple):
    """The smallest ⟨∇f(y) - ∇f(y'), y - y'⟩ / ‖y - y'‖² over `pairs` pairs at one distance, beside the exact bound.

    `bound` is what every exact energy of X in [0, 1]^d obeys at this distance; below √d it is negative, and true still.
    """

    distance: float
    smallest: float
    bound: float
    pairs: int


def strong_convexity(sigma: float, dimension: int, radius: float) -> float:
    """m = (1 - √d/R) / σ², the constant of Eq. 21 outside a ball of radius R for the exact energy of X in [0, 1]^d.

    Since ∇f(y) = (y - x̂(y))/σ², and two posterior means lie in the cube, so at most √d apart.

    Raises:
        UserError: unless R > √d.
    """
    if not radius > math.sqrt(dimension):
        raise UserError(f"radius {radius:g} must be above √d = {math.sqrt(dimension):g}; within it the bound says nothing")
    return _bound(sigma, dimension, radius)


@torch.no_grad()
def monotonicity(energy: Energy, y: Tensor, other: Tensor, eps: Tensor) -> Tensor:
    """⟨∇f(y) - ∇f(y'), y - y'⟩ / ‖y - y'‖² of pairs (B, C, H, W), with one ε (B, noise_dim) for both ends -> (B,)."""
    difference = (y - other).flatten(1)  # (B, d)
    gradients = (energy.gradient(y, eps) - energy.gradient(other, eps)).flatten(1)
    return (gradients * difference).sum(1) / difference.square().sum(1)


def smallest_monotonicity(
    energy: Energy, centers: Tensor, directions: Tensor, eps: Tensor, distances: list[float]
) -> list[Monotonicity]:
    """The smallest quotient of Eq. 21 at each distance, over pairs c ± (distance/2) u.

    Args:
        centers: (B, C, H, W), e.g. noisy images.
        directions: (B, C, H, W), made unit vectors u here: `sphere` for any direction, or differences of images, along
            which an energy is least convex.
        eps: (B, noise_dim), shared by both ends of a pair.
        distances: ‖y - y'‖, each above 0.
    """
    d = centers[0].numel()
    unit = _unit(directions)
    found = []
    for distance in distances:
        if not distance > 0:
            raise UserError(f"distance {distance}: two points must be apart, above 0")
        step = 0.5 * distance * unit
        quotients = monotonicity(energy, centers + step, centers - step, eps)
        bound = _bound(float(energy.sigma), d, distance)
        found.append(Monotonicity(distance, float(quotients.min()), bound, len(quotients)))
    return found


def sphere(like: Tensor, generator: torch.Generator) -> Tensor:
    """Directions uniform on the sphere, one for each image of `like`, unit norm."""
    normal = torch.randn(like.shape, generator=generator, device=generator.device).to(like)
    return _unit(normal)


def _unit(directions: Tensor) -> Tensor:
    norms: Tensor = directions.flatten(1).norm(dim=1)
    return directions / norms.reshape(-1, *[1] * (directions.dim() - 1))


def _bound(sigma: float, dimension: int, distance: float) -> float:
    return (1 - math.sqrt(dimension) / distance) / sigma**2
