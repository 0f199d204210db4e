"""-log p(y) of noisy test images under three densities: the model's, the training set's exact one, and a Gaussian."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.annealing import Annealer, Annealing, normalizer
from uvb.measure.gaussian_fit import GaussianFit, fit_gaussian
from uvb.measure.losses import clustered_mean
from uvb.models.base import Energy, Estimator
from uvb.noise import generator
from uvb.sampling.chains import held_noise
from uvb.spec import RunSpec

IMAGES, CHAINS = 2000, 64
WALK = 20  # HMC trajectories in the energy's density before the reverse chains begin


def annealing_for(spec: RunSpec, context: Context) -> Annealing:
    """How to anneal. More pixels and less noise need more temperatures: 20 for digits at σ = 1, 70 for MNIST at σ = 1."""
    temperatures = 20 * math.sqrt(math.prod(spec.data.shape) / 64) / min(1.0, spec.sigma)
    return Annealing(context.shortened(CHAINS, least=4), max(2, round(temperatures * context.scale)))


def _gradients(spec: RunSpec, context: Context) -> float:
    config = annealing_for(spec, context)
    images = context.estimates(limit=context.shortened(IMAGES, least=20)) * context.evaluation.draws
    return config.chains * (2 * config.gradients + 1 + WALK * config.leapfrogs) + 0.5 * images


# By default a study measures only the largest noise level, because this experiment is slow.
@register_experiment("likelihood_over_sigma", needs="energy", default=False, gradients=_gradients)
@register_experiment("likelihood", needs="energy", where="largest", gradients=_gradients)
@torch.no_grad()
def likelihood(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{density, nll, stderr, bits}] of the densities "model", "exact" and "gaussian", in nats and in bits per pixel.

    These are densities of pixels in units of [0, 1], so values may be below 0. ε is held fixed, so that exp(-f) is a density.

    `log_z` and its bounds `lower` and `upper` come from annealing in both directions between exp(-f) and the Gaussian with the
    mean and the covariance of Y. The reverse chains begin at noisy training images, and first walk 20 trajectories in exp(-f).
    `upper` is a bound only if these chains then follow exp(-f). If the bounds do not meet, `message` says so, and the model
    gets no `nll`.

    `excess` is the model's -log p(y) minus the exact density's -log p(y), on the same noisy images. The arrays model, exact and
    gaussian, (N,), hold each image's -log p(y), averaged over the noise draws.
    """
    assert isinstance(model, Energy)
    if context.plan.precision == "bf16":  # rounding to bf16 would change log Z by whole nats
        context = replace(context, plan=replace(context.plan, precision="fp32"))
    plan, config, energy = context.plan, annealing_for(spec, context), Frozen(model, context.plan)
    like = torch.zeros(1, device=plan.device, dtype=plan.dtype)
    base = fit_gaussian(context.images, spec.sigma, spec.data.train_images, like)
    start = Annealer(base, energy, config, context.seed).walk(_noisy_training(spec, context, config.chains, like), WALK)
    found = normalizer(base, energy, start, config, context.seed)
    values = _values(energy, base, spec, context)
    rows, arrays, d = [], {}, math.prod(spec.data.shape)
    for name, energies in values.items():
        row: dict[str, Any] = {"density": name, "nll": None, "stderr": None, "bits": None}
        log_z, error = (found.log_z, found.stderr) if name == "model" else (0.0, 0.0)  # the others are normalized
        if name != "model" or not found.message:
            nll = energies + log_z
            mean = clustered_mean(nll)
            row |= {"nll": mean.value, "stderr": math.hypot(mean.stderr, error), "bits": mean.value / d / math.log(2)}
            arrays[name] = nll.mean(1)
        rows.append(row)
    scalars: dict[str, Any] = {
        "sigma": spec.sigma, "rows": rows, "images": len(values["exact"]), "draws": values["exact"].shape[1],
        "chains": config.chains, "temperatures": config.temperatures, "gradients": 2 * config.chains * config.gradients,
        "message": found.message, "excess": None, "excess_stderr": None,
        **{k: v if math.isfinite(v) else None for k, v in found._asdict().items() if k != "message"},
    }  # fmt: skip
    if not found.message:
        excess = clustered_mean(arrays["model"] - arrays["exact"])
        scalars |= {"excess": excess.value, "excess_stderr": math.hypot(excess.stderr, found.stderr)}
    else:
        scalars["log_z"] = scalars["stderr"] = None
    return Result(scalars, arrays)


def _noisy_training(spec: RunSpec, context: Context, n: int, like: Tensor) -> Tensor:
    """n noisy training images, (n, C, H, W), drawn with replacement."""
    rows = torch.randint(spec.data.train_images, (n,), generator=generator(context.seed, "reverse starts"))
    x = context.images.train[rows].to(like) / context.images.levels
    return x + spec.sigma * context.normal(x, "reverse noise")


def _values(energy: Energy, base: GaussianFit, spec: RunSpec, context: Context) -> dict[str, Tensor]:
    """f(y) of the model (log Z is not added), and -log p(y) of the other densities: (N, draws) float64, on the CPU."""
    exact = context.exact_energy(spec)

    def measure(_: Tensor, y: Tensor, none: Tensor) -> dict[str, Tensor]:
        model = energy.energy(y, held_noise(energy, len(y), context.seed, y))
        return {"model": model, "exact": exact.energy(y, none), "gaussian": base.energy(y, none)}

    return context.noisy(spec, limit=context.shortened(IMAGES, least=20)).measured(0, measure)
