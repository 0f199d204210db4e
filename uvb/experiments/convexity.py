"""Eq. 21: how strongly convex the model's energy and the exact energy are between points at distance R."""

import math

import torch

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.convexity import smallest_monotonicity, sphere
from uvb.models.base import Energy, Estimator
from uvb.noise import generator
from uvb.spec import RunSpec

PAIRS = 128
DISTANCES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # in units of √d


@register_experiment("convexity", needs="energy", where="largest", default=False,
                     gradients=lambda spec, context: 2 * context.shortened(PAIRS, least=8) * len(DISTANCES))  # fmt: skip
@torch.no_grad()
def convexity(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`bound`, `measured` and `exact`, each a list of [R, m].

    - `bound`: (1 - √d/R)/σ².
    - `measured`: the smallest quotient ⟨∇f(y) - ∇f(y'), y - y'⟩ / ‖y - y'‖² of the model's energy at distance R or farther.
    - `exact`: this quotient of the training set's exact energy, on the same pairs of points.

    The centre of each pair is a noisy test image. Half of the pairs lie along differences of two test images, where an energy
    is least convex. The other half lie along random directions. A measured quotient below m proves that the energy is not
    m-strongly convex at this distance. The measurement cannot prove the opposite.
    """
    assert isinstance(model, Energy)
    images, plan = context.images, context.plan
    n = min(context.shortened(PAIRS, least=8), len(images.test) // 2)
    x = context.test_images(2 * n).to(plan.device, plan.dtype) / images.levels  # (2n, C, H, W)
    centers = x[:n] + spec.sigma * context.normal(x[:n], "convexity")
    directions = x[:n] - x[n:]
    anywhere = sphere(directions, generator(context.seed, "convexity directions"))
    alike = directions.flatten(1).norm(dim=1) == 0  # the difference of equal images has no direction
    at_random = (torch.arange(n, device=x.device) % 2 == 1) | alike
    directions = torch.where(at_random.reshape(-1, 1, 1, 1), anywhere, directions)
    distances = [math.sqrt(x[0].numel()) * factor for factor in DISTANCES]

    scalars: dict[str, object] = {"sigma": spec.sigma, "pairs": n}
    for name, energy in (("measured", model), ("exact", context.exact_energy(spec))):
        eps = context.latent_noise(energy, centers, "convexity latent")
        found = smallest_monotonicity(energy, centers, directions, eps, distances)
        beyond = torch.tensor([each.smallest for each in found]).flip(0).cummin(0).values.flip(0)  # smallest at R or farther
        scalars[name] = [[each.distance, value] for each, value in zip(found, beyond.tolist(), strict=True)]
        scalars["bound"] = [[each.distance, each.bound] for each in found]
    return Result(scalars)
