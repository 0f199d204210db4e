"""KL and reconstruction error of a latent model (Tables 4 and 5), for each way to read their captions."""

import torch
from torch import Tensor

from uvb.measure.losses import Mean, NoisyImages, clustered_mean
from uvb.models.base import LatentEnergy


@torch.no_grad()
def measure_internals(model: LatentEnergy, noisy: NoisyImages) -> dict[str, Mean]:
    """Mean KL (Table 4) and reconstruction error (Table 5) over images, in nats, by name.

    - ``kl_noisy``: KL[q(z|y), p(z)], as in Table 4.
    - ``kl_clean``: KL[q(z|x), p(z)].
    - ``recon_<source>_<target>_<factor>``: factor · E‖target - μ_y(z)‖² / σ². The source is "noisy" (z ~ q(z|y)) or "clean"
      (z ~ q(z|x)). The target is y or x. The factor is ½ ("half") or 1 ("full").

    The caption of Table 5 describes ``recon_clean_y_half``. Its z does not depend on the noise in y. So no decoder can predict
    that noise. The noise alone adds d/2 for d pixels. On MNIST this is 392, but the paper has 103.
    """
    sigma = model.sigma.item()

    def measure(clean: Tensor, y: Tensor, eps: Tensor) -> dict[str, Tensor]:
        kls: dict[str, Tensor] = {}
        recons: dict[str, Tensor] = {}
        for source, image in (("noisy", y), ("clean", clean)):
            with noisy.plan.autocast():
                z, mu, lam = model.sample_latent(image, eps)
                mean = model.decode(z)
            kls[f"kl_{source}"] = model.kl(z, mu, lam)
            for target, wanted in (("y", y), ("x", clean)):
                squares = (wanted - mean).square().flatten(1).double().sum(1) / sigma**2  # (b,)
                recons |= {f"recon_{source}_{target}_half": squares / 2, f"recon_{source}_{target}_full": squares}
        return kls | recons

    return {name: clustered_mean(values) for name, values in noisy.measured(model.noise_dim, measure).items()}
