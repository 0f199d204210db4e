"""Figure 4: samples of the decoder; and for models trained by an ELBO the failure figure of Sec. 3.3.2."""

import torch

from uvb.experiments._draws import latent_noise, shown_images
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

    Where the decoder learns to reconstruct (by an ELBO) also the rows of Sec. 3.3.2's figure: clean,
    noisy, recon = μ_y(z) with z ~ q(z|y).
    """
    assert isinstance(model, LatentEnergy)
    plan = context.plan
    z = normal((SAMPLES, spec.widths.latent), context.seed, "prior").to(plan.device, plan.dtype)
    arrays = {"samples": model.decode(z)}
    if OBJECTIVES[spec.objective].trains_the_decoder:
        clean, y = shown_images(spec, context)
        eps = latent_noise(model, len(y), y, context, "rows latent")
        arrays |= {"clean": clean, "noisy": y, "recon": model.decode(model.sample_latent(y, eps)[0])}
    return Result({"sigma": spec.sigma}, arrays)
