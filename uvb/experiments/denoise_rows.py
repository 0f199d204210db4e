"""Figure 2: a few test images x, the noisy y, x̂(y) and x̂(x̂(y)), the same x for every model. Energies also get samples."""

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments.registry import ROWS, Context, Result, register_experiment
from uvb.measure.losses import denoisers, own_estimator
from uvb.models.base import Energy, Estimator
from uvb.sampling.walk_jump import walk_at, walk_jump
from uvb.spec import RunSpec

STEPS = 20  # steps of the walk between two samples


@register_experiment("denoise_rows", gradients=lambda spec, context: (context.shortened(STEPS) + 3.5) * ROWS)
@torch.no_grad()
def denoise_rows(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays clean, noisy, xhat, xhat2, each (N, C, H, W). x̂ is the estimator that `own_estimator` chooses.

    For an energy there is also the array samples: the first jumps of one chain that begins as uniform noise. There are fewer
    of them if the chain diverges.
    """
    clean, y = context.shown_images(spec)
    eps = context.latent_noise(model, y, "rows latent")
    offered = denoisers(model)
    denoise = offered[own_estimator(spec.model, offered)]
    x_hat = denoise(y, eps)
    arrays = {"clean": clean, "noisy": y, "xhat": x_hat, "xhat2": denoise(x_hat, eps)}
    if isinstance(model, Energy) and (samples := one_chain(model, spec, context)):
        arrays["samples"] = torch.cat(samples).float()
    return Result({"sigma": spec.sigma}, arrays)


def one_chain(model: Energy, spec: RunSpec, context: Context) -> list[Tensor]:
    """The jumps of one chain, each (1, C, H, W)."""
    walk = walk_at(spec.sigma, jumps=ROWS, steps_between_jumps=context.shortened(STEPS))
    jumps = walk_jump(Frozen(model, context.plan), context.chains(1, spec), walk, context.seed)
    return [landed.x_hat for _, landed in jumps if bool(landed.alive.all())]
