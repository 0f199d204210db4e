"""Figure 2: clean, noisy, x̂(y), x̂(x̂(y)) of a few test images; the same images and noise for every model."""

import torch

from uvb.experiments._draws import latent_noise, shown_images
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import denoisers, own_estimator
from uvb.models.base import Estimator
from uvb.spec import RunSpec


@register_experiment("denoise_rows", scaled=False)
@torch.no_grad()
def denoise_rows(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays clean, noisy, xhat, xhat2, each (N, C, H, W); x̂ by the estimator that the model is judged by."""
    clean, y = shown_images(spec, context)
    eps = latent_noise(model, len(y), y, context, "rows latent")
    offered = denoisers(model)
    denoise = offered[own_estimator(spec.model, offered)]
    x_hat = denoise(y, eps)
    x_hat2 = denoise(x_hat, eps)
    return Result({"sigma": spec.sigma}, {"clean": clean, "noisy": y, "xhat": x_hat, "xhat2": x_hat2})
