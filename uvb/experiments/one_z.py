"""Figure 2's caption: compare x̂ with one z to the mean of x̂ over many z."""

import torch

from uvb.experiments.registry import ROWS, Context, Result, register_experiment
from uvb.models.base import Estimator, LatentEnergy
from uvb.noise import generator
from uvb.spec import RunSpec

DRAWS, BATCH = 1000, 500


@register_experiment("one_z", needs="latent", where="largest",
                     gradients=lambda spec, context: ROWS * context.shortened(DRAWS, least=2))  # fmt: skip
@torch.no_grad()
def one_z(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays clean, one, mean, each (N, C, H, W): x, x̂(y) with one z, and the mean of x̂(y) over 1,000 z.

    `max_difference` is the largest |one - mean| of any pixel. In the paper the differences lie within ±0.0068. `rms_difference`
    is the root mean square of one - mean over all pixels.
    """
    assert isinstance(model, LatentEnergy)
    clean, y = context.shown_images(spec)
    one = model(y, context.latent_noise(model, y, "rows latent"))
    draws, g = context.shortened(DRAWS, least=2), generator(context.seed, "one_z")
    total = torch.zeros_like(y, dtype=torch.float64)
    at_once = max(1, BATCH // len(y))
    for start in range(0, draws, at_once):
        k = min(at_once, draws - start)
        eps = torch.randn(k * len(y), model.noise_dim, generator=g).to(y)
        total += model(y.repeat(k, 1, 1, 1), eps).reshape(k, *y.shape).double().sum(0)
    mean = total / draws
    difference = (one - mean).abs()
    scalars = {
        "sigma": spec.sigma, "draws": draws, "images": len(y), "max_difference": difference.max().item(),
        "rms_difference": difference.square().mean().sqrt().item(),
    }  # fmt: skip
    return Result(scalars, {"clean": clean, "one": one, "mean": mean.float()})
