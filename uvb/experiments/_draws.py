"""Images and noise that several experiments share, so that their figures show the same digits."""

import torch
from torch import Tensor

from uvb.experiments.registry import Context
from uvb.models.base import Estimator
from uvb.noise import generator, normal
from uvb.spec import RunSpec

ROWS = 18  # images of Figure 2


def row_indices(context: Context) -> Tensor:
    """Which test images Figure 2 and its like show: (N,) int64 with N ≤ `ROWS`, the same for every model."""
    available = len(context.images.test)
    return torch.randperm(available, generator=generator(context.seed, "rows"))[: min(ROWS, available)]


def shown_images(spec: RunSpec, context: Context) -> tuple[Tensor, Tensor]:
    """Those images x and y = x + σ noise, each (N, C, H, W), on the plan's device; the same noise for every model and σ."""
    plan = context.plan
    chosen = context.images.test[row_indices(context)]
    clean = chosen.to(plan.device, plan.dtype) / context.images.levels
    return clean, clean + spec.sigma * normal(tuple(clean.shape), context.seed, "rows noise").to(clean)


def latent_noise(model: Estimator, n: int, like: Tensor, context: Context, *purpose: str | int) -> Tensor:
    """ε ~ N(0, I), (n, noise_dim), keyed by the context's seed and `purpose`."""
    return normal((n, model.noise_dim), context.seed, *purpose).to(like)


def shortened(count: int, context: Context, least: int = 1) -> int:
    """`count` times the context's scale, at least `least`."""
    return max(least, round(count * context.scale))
