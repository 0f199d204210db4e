"""Figure 4: samples of the decoder. A model trained by an ELBO also gets the figure of Sec. 3.3.2."""

import torch

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.models.base import Estimator, LatentEnergy
from uvb.noise import normal
from uvb.spec import RunSpec
from uvb.training.objectives import OBJECTIVES

SAMPLES = 48


@register_experiment("decoder_samples", needs="latent", where="largest", scaled=False)
@torch.no_grad()
def decoder_samples(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Array samples (48, C, H, W): μ_y(z), z ~ N(0, I).

    If the model was trained by an ELBO, there are also the arrays of the figure of Sec. 3.3.2: clean, noisy, and
    recon = μ_y(z) with z ~ q(z|y), each (N, C, H, W).
    """
    assert isinstance(model, LatentEnergy)
    plan = context.plan
    z = normal((SAMPLES, spec.widths.latent), context.seed, "prior").to(plan.device, plan.dtype)
    arrays = {"samples": model.decode(z)}
    if OBJECTIVES.get(spec.objective).trains_the_decoder:
        clean, y = context.shown_images(spec)
        z, _, _ = model.sample_latent(y, context.latent_noise(model, y, "rows latent"))
        arrays |= {"clean": clean, "noisy": y, "recon": model.decode(z)}
    return Result({"sigma": spec.sigma}, arrays)
