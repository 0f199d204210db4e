"""Eq. 21: how strongly convex an energy is between points a distance R apart, learned and exact."""

import math

import torch

from uvb.data.stream import resident
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.experiments._draws import latent_noise, shortened
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.convexity import smallest_monotonicity, sphere
from uvb.measure.losses import drawn_test_images
from uvb.models.base import Energy, Estimator
from uvb.noise import generator, normal
from uvb.spec import RunSpec

PAIRS = 128
DISTANCES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # in units of √d


@register_experiment("convexity", needs="energy", where="largest", default=False)
@torch.no_grad()
def convexity(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`bound`, `measured` and `exact`, each [[R, m]]: (1 - √d/R)/σ², and the smallest quotient of Eq. 21 seen at R or
    beyond, of the model and of the training set's exact energy on the same pairs.

    Pairs lie about noisy test images, half of them along differences of two test images (where an energy is least
    convex), half along any direction. The smallest *seen* is no lower bound: it can refute a value of m, not prove one.
    """
    assert isinstance(model, Energy)
    images, plan = context.images, context.plan
    n = min(shortened(PAIRS, context, least=8), len(images.test) // 2)
    x = drawn_test_images(images, 2 * n, context.evaluation).to(plan.device, plan.dtype) / images.levels  # (2n, C, H, W)
    centers = x[:n] + spec.sigma * normal((n, *images.shape), context.seed, "convexity").to(x)
    directions = x[:n] - x[n:]
    anywhere = sphere(directions, generator(context.seed, "convexity directions"))
    alike = directions.flatten(1).norm(dim=1) == 0  # two equal images have no direction
    half = (torch.arange(n, device=x.device) % 2 == 1) | alike
    directions = torch.where(half.reshape(-1, 1, 1, 1), anywhere, directions)
    distances = [math.sqrt(x[0].numel()) * factor for factor in DISTANCES]

    prior = resident(images.train[: spec.data.train_images], plan.device)
    exact = EmpiricalBayes(prior, spec.sigma, levels=images.levels)
    scalars: dict[str, object] = {"sigma": spec.sigma, "pairs": n}
    for name, energy in (("measured", model), ("exact", exact)):
        eps = latent_noise(energy, n, x, context, "convexity latent")
        found = smallest_monotonicity(energy, centers, directions, eps, distances)
        beyond = torch.tensor([each.smallest for each in found]).flip(0).cummin(0).values.flip(0)  # at R or farther
        scalars[name] = [[each.distance, value] for each, value in zip(found, beyond.tolist(), strict=True)]
        scalars["bound"] = [[each.distance, each.bound] for each in found]
    return Result(scalars)
