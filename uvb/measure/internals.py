"""Inside the encoder and decoder: Tables 4 and 5, in every convention that the captions allow."""

import torch
from torch import Tensor

from uvb.measure.losses import EvalConfig, Mean, clustered_mean, noisy_blocks
from uvb.models.base import LatentEnergy
from uvb.plan import Plan

_SOURCES, _FACTORS = ("noisy", "clean"), ("half", "full")
_RECON = [f"recon_{source}_{target}_{factor}" for source in _SOURCES for target in "yx" for factor in _FACTORS]
QUANTITIES = ("kl_noisy", "kl_clean", *_RECON)


@torch.no_grad()
def measure_internals(
    model: LatentEnergy, x: Tensor, levels: int, split: str, config: EvalConfig, plan: Plan
) -> dict[str, Mean]:
    """Mean of each of `QUANTITIES` over images x (uint8, (N, C, H, W)), in nats.

    ``kl_noisy`` is KL[q(z|y), p(z)] (Table 4), ``kl_clean`` the same of q(z|x). ``recon_<source>_<target>_<factor>`` is
    factor · E‖target - μ_y(z)‖² / σ², z ~ q(z|y) (noisy) or q(z|x) (clean), target y or x, factor ½ (half) or 1 (full).
    Table 5's caption writes q(z|x), y and 1/2σ², which with noisy y is at least d/2.
    """
    values: dict[str, list[Tensor]] = {name: [] for name in QUANTITIES}
    sigma = model.sigma.item()
    for draw in range(config.draws):
        for clean, y, eps in noisy_blocks(x, levels, sigma, model.noise_dim, split, draw, config, plan):
            for source, image in (("noisy", y), ("clean", clean)):
                with plan.autocast():
                    z, mu, lam = model.sample_latent(image, eps)
                    mean = model.decode(z)
                values[f"kl_{source}"].append(model.kl(z, mu, lam).double().cpu())
                for target, wanted in (("y", y), ("x", clean)):
                    squares = (wanted - mean).square().flatten(1).double().sum(1).cpu() / sigma**2  # (b,)
                    values[f"recon_{source}_{target}_half"].append(squares / 2)
                    values[f"recon_{source}_{target}_full"].append(squares)
    shaped = {name: torch.cat(parts).reshape(config.draws, len(x)).T for name, parts in values.items()}
    return {name: clustered_mean(value) for name, value in shaped.items()}
