"""-log p(y) of noisy test images: an energy given its log Z, beside the training set's exact density and a Gaussian."""

import dataclasses
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.experiments._draws import shortened
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.annealing import Annealer, Annealing, normalizer
from uvb.measure.gaussian_fit import GaussianFit, fit_gaussian
from uvb.measure.losses import Mean, clustered_mean, drawn_test_images, noisy_blocks
from uvb.models.base import Energy, Estimator
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.sampling.chains import held_noise
from uvb.spec import RunSpec

IMAGES, CHAINS = 2000, 64
WALK = 20  # trajectories in the energy's density before the reverse chains begin


def annealing_for(spec: RunSpec, context: Context) -> Annealing:
    """More temperatures for more pixels and less noise; 20 for digits at σ = 1, 70 for MNIST."""
    temperatures = 20 * math.sqrt(math.prod(spec.data.shape) / 64) / min(1.0, spec.sigma)
    return Annealing(shortened(CHAINS, context, least=4), max(2, round(temperatures * context.scale)))


@torch.no_grad()
def likelihood(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{density, nll, stderr, bits}] of "model", "exact" and "gaussian"; nats, and bits a pixel. The density is of
    pixels in [0, 1], so values may be below 0.

    A random energy is held at one ε, so that exp(-f) is one density: the seed's. `log_z`, `lower` and `upper` are annealed
    from the Gaussian with the mean and covariance of Y, and back from 20 trajectories of the energy begun at noisy training
    images. Where the bounds do not meet, `message` says so and the model has no number. `excess` is -log p(y) of the model
    less the exact density's, on the same noisy images. Arrays: each image's -log p(y), (N,), its mean over the noise draws.
    """
    assert isinstance(model, Energy)
    plan = context.plan if context.plan.precision == "fp64" else dataclasses.replace(context.plan, precision="fp32")
    config, energy = annealing_for(spec, context), Frozen(model, plan)
    like = torch.zeros(1, device=plan.device, dtype=plan.dtype)
    base = fit_gaussian(context.images, spec.sigma, spec.data.train_images, like)
    start, _ = Annealer(base, energy, config, context.seed).walk(_noisy_training(spec, context, config.chains, like), WALK)
    found = normalizer(base, energy, start, config, context.seed)
    values = _values(energy, base, spec, context, plan)
    log_z = None if found.message else found.log_z
    rows, arrays, d = [], {}, math.prod(spec.data.shape)
    for name, each in values.items():
        known = name != "model" or log_z is not None
        nll = each + (log_z or 0.0) if name == "model" else each
        mean = clustered_mean(nll)
        stderr = math.hypot(mean.stderr, found.stderr) if name == "model" else mean.stderr
        shown = Mean(mean.value, stderr) if known else None
        rows.append({"density": name, "nll": shown and shown.value, "stderr": shown and shown.stderr,
                     "bits": shown and shown.value / d / math.log(2)})  # fmt: skip
        if known:
            arrays[name] = nll.mean(1)
    scalars: dict[str, Any] = {
        "sigma": spec.sigma, "rows": rows, "images": len(values["exact"]), "draws": values["exact"].shape[1],
        "chains": config.chains, "temperatures": config.temperatures, "gradients": 2 * config.chains * config.gradients,
        "message": found.message, "excess": None, "excess_stderr": None,
        **{k: v if math.isfinite(v) else None for k, v in found._asdict().items() if k != "message"},
    }  # fmt: skip
    if log_z is not None:
        excess = clustered_mean(arrays["model"] - arrays["exact"])
        scalars |= {"excess": excess.value, "excess_stderr": math.hypot(excess.stderr, found.stderr)}
    else:
        scalars["log_z"] = scalars["stderr"] = None
    return Result(scalars, arrays)


# A study gives the largest noise level a likelihood by default. All levels cost a search's time, so they are asked for.
register_experiment("likelihood", needs="energy", where="largest")(likelihood)
register_experiment("likelihood_over_sigma", needs="energy", default=False)(partial(likelihood))


def _noisy_training(spec: RunSpec, context: Context, n: int, like: Tensor) -> Tensor:
    """n training images with noise, (n, C, H, W); some twice where there are fewer."""
    rows = torch.randint(spec.data.train_images, (n,), generator=generator(context.seed, "reverse starts"))
    x = context.images.train[rows].to(like) / context.images.levels
    return x + spec.sigma * normal(tuple(x.shape), context.seed, "reverse noise").to(like)


def _values(energy: Energy, base: GaussianFit, spec: RunSpec, context: Context, plan: Plan) -> dict[str, Tensor]:
    """f(y) of the model (without log Z), and -log p(y) of the other densities: (N, draws) float64, on the CPU."""
    images, config = context.images, context.evaluation
    x = drawn_test_images(images, shortened(IMAGES, context, least=20), config)
    exact = EmpiricalBayes(images.train[: spec.data.train_images].to(plan.device), spec.sigma, levels=images.levels)
    found: dict[str, list[Tensor]] = {"model": [], "exact": [], "gaussian": []}
    for draw in range(config.draws):
        for _, y, none in noisy_blocks(x, images.levels, spec.sigma, 0, "test", draw, config, plan):
            found["model"].append(energy.energy(y, held_noise(energy, len(y), context.seed, y)))
            found["exact"].append(exact.energy(y, none))
            found["gaussian"].append(base.energy(y, none))
    return {name: torch.cat(parts).double().cpu().reshape(config.draws, len(x)).T for name, parts in found.items()}
