"""Figure 2: clean, noisy, x̂(y), x̂(x̂(y)) of a few test images. Every model gets the same images and noise."""

import torch

from uvb.experiments.registry import ROWS, Context, Result, register_experiment
from uvb.measure.losses import denoisers, own_estimator
from uvb.models.base import Estimator
from uvb.spec import RunSpec


@register_experiment("denoise_rows", scaled=False, gradients=lambda spec, context: 2 * ROWS)
@torch.no_grad()
def denoise_rows(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays clean, noisy, xhat, xhat2, each (N, C, H, W). x̂ is the estimator that `own_estimator` chooses."""
    clean, y = context.shown_images(spec)
    eps = context.latent_noise(model, y, "rows latent")
    offered = denoisers(model)
    denoise = offered[own_estimator(spec.model, offered)]
    x_hat = denoise(y, eps)
    return Result({"sigma": spec.sigma}, {"clean": clean, "noisy": y, "xhat": x_hat, "xhat2": denoise(x_hat, eps)})
