"""Figure 1a: energies of clean, denoised and noisy images. Noisy samples have high energy."""

import torch
from torch import Tensor

from uvb.experiments._draws import shortened
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import drawn_test_images, noisy_blocks
from uvb.models.base import Energy, Estimator
from uvb.spec import RunSpec

IMAGES = 2000


@register_experiment("energies", needs="energy", where="largest")
@torch.no_grad()
def energies(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays f_clean, f_xhat, f_noisy: f(x), f(x̂(y)), f(y) of the same test images and ε, (N,), in nats.

    An energy's zero is arbitrary, so only differences within one model mean something. `noisy_above_clean` is the share
    of images with f(y) > f(x).
    """
    assert isinstance(model, Energy)
    images = context.images
    x = drawn_test_images(images, shortened(IMAGES, context, least=100), context.evaluation)
    parts: dict[str, list[Tensor]] = {"f_clean": [], "f_xhat": [], "f_noisy": []}
    blocks = noisy_blocks(x, images.levels, spec.sigma, model.noise_dim, "test", 0, context.evaluation, context.plan)
    for clean, y, eps in blocks:
        for name, image in (("f_clean", clean), ("f_xhat", model(y, eps)), ("f_noisy", y)):
            parts[name].append(model.energy(image, eps))
    f = {name: torch.cat(values).double().cpu() for name, values in parts.items()}
    scalars = {"sigma": spec.sigma, "images": len(x)}
    scalars |= {f"{name}_mean": values.mean().item() for name, values in f.items()}
    scalars["noisy_above_clean"] = (f["f_noisy"] > f["f_clean"]).double().mean().item()
    return Result(scalars, {name: values.float() for name, values in f.items()})
