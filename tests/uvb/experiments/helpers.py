"""Energies with known results, and a function that runs an experiment on one."""

import json

import torch
from torch import Tensor

from tests.support.builders import tiny_spec
from uvb.data import ImageSet
from uvb.experiments import Context, Result, get_experiment
from uvb.measure.losses import EvalConfig
from uvb.models.base import Energy, Estimator, LatentEnergy
from uvb.plan import Plan

FP64 = Plan(precision="fp64")
EVALUATION = EvalConfig(train_images=60, test_images=50, draws=2)


def context_of(images: ImageSet, plan: Plan = FP64, scale: float = 0.1, seed: int = 0) -> Context:
    return Context(images, plan, EVALUATION, seed=seed, scale=scale)


def run(name: str, model: torch.nn.Module, images: ImageSet, **changes: object) -> Result:
    """Run the experiment on a model at the model's σ. Its scalars must be JSON without NaN, and its arrays finite."""
    result = get_experiment(name).run(model, tiny_spec(images, sigma=float(model.sigma)), context_of(images, **changes))
    json.dumps(result.scalars, allow_nan=False)
    for key, array in result.arrays.items():
        assert bool(array.isfinite().all()), key
    return result


class Gaussian(Energy):
    """f(y) = ‖y - m‖² / 2s², the energy of N(m, s² I); x̂(y) = y - (σ²/s²)(y - m)."""

    def __init__(self, mean: float = 0.3, variance: float = 2.0, sigma: float = 1.0) -> None:
        super().__init__(sigma)
        self.mean, self.variance = mean, variance

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return (y - self.mean).square().flatten(1).sum(1) / (2 * self.variance)


class Hill(Gaussian):
    """A Gaussian energy that throws a chain out to infinity if its first pixel is above `edge`."""

    edge = 0.5

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return super().energy(y, eps) - 1e12 * (y[:, 0, 0, 0] - self.edge).clamp(min=0) ** 2


class Shaken(LatentEnergy):
    """x̂(y) = y + 0.1 ε₀, so the effect of ε is known. No test here uses its encoder or decoder."""

    noise_dim = 3

    def __init__(self) -> None:
        super().__init__(sigma=1.0)

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return -0.1 * eps[:, 0] * y.flatten(1).sum(1)

    def encode(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y.new_zeros(len(y), 3), y.new_zeros(len(y), 3)

    def decode(self, z: Tensor) -> Tensor:
        return z.new_zeros(len(z), 1, 8, 8)


class Identity(Estimator):
    """x̂(y) = y."""

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        return y
