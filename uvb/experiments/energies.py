"""Figure 1a: energies of clean, denoised and noisy images. Noisy images have high energy."""

import torch
from torch import Tensor

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.models.base import Energy, Estimator
from uvb.spec import RunSpec

IMAGES = 2000


@register_experiment("energies", needs="energy", where="largest",
                     gradients=lambda spec, context: 2.5 * context.estimates(limit=context.shortened(IMAGES, 100)))  # fmt: skip
@torch.no_grad()
def energies(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays f_clean, f_xhat, f_noisy: f(x), f(x̂(y)), f(y) of the same test images and ε, (N,), in nats.

    An energy has an arbitrary constant, so only differences within one model have a meaning. `noisy_above_clean` is the share
    of images with f(y) > f(x).
    """
    assert isinstance(model, Energy)

    def measure(clean: Tensor, y: Tensor, eps: Tensor) -> dict[str, Tensor]:
        seen = {"f_clean": clean, "f_xhat": model(y, eps), "f_noisy": y}
        return {name: model.energy(image, eps) for name, image in seen.items()}

    noisy = context.noisy(spec, limit=context.shortened(IMAGES, least=100))
    f = {name: values[:, 0] for name, values in noisy.measured(model.noise_dim, measure, draws=1).items()}
    scalars = {"sigma": spec.sigma, "images": len(noisy)}
    scalars |= {f"{name}_mean": values.mean().item() for name, values in f.items()}
    scalars["noisy_above_clean"] = (f["f_noisy"] > f["f_clean"]).double().mean().item()
    return Result(scalars, {name: values.float() for name, values in f.items()})
