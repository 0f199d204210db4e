"""Denoising losses with error bars, on noise common to every model."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models.base import Energy, Estimator, LatentEnergy
from uvb.models.registry import get_model
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.training.objectives import OBJECTIVES

BLOCK = 500  # images a block; part of the key of the noise, so it never changes

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (y, eps) -> x_hat


@dataclass(frozen=True)
class EvalConfig:
    """How losses are measured: at most `train_images` of the training set and `test_images` of the test set (0: all), each
    with `draws` noise draws keyed by `seed`."""

    train_images: int = 10_000
    test_images: int = 0
    draws: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error; draws of one image are averaged first, so the error is clustered by image."""

    value: float
    stderr: float


def evaluation_images(images: ImageSet, split: str, config: EvalConfig, train_images: int | None = None) -> Tensor:
    """The fixed uint8 images (N, C, H, W) of a split that every model is measured on.

    `train_images` restricts the training split to the first so many, for models trained on a part.
    """
    pool = images.train[:train_images] if split == "train" else images.test
    limit = config.train_images if split == "train" else config.test_images
    return pool if not limit or limit >= len(pool) else pool[evaluation_indices(len(pool), split, limit, config.seed)]


def evaluation_indices(available: int, split: str, limit: int, seed: int) -> Tensor:
    """Which `limit` of a split's images are measured on, (n,) int64, sorted; drawn, since the first may be the easier ones."""
    return torch.randperm(available, generator=generator(seed, "eval images", split))[:limit].sort().values


def drawn_test_images(images: ImageSet, count: int, config: EvalConfig) -> Tensor:
    """At most `count` test images (n, C, H, W), the same for every model: those of a loss table that is so small."""
    return evaluation_images(images, "test", replace(config, test_images=count))


def noisy_blocks(
    x: Tensor, levels: int, sigma: float, noise_dim: int, split: str, draw: int, config: EvalConfig, plan: Plan
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Blocks of (x, y, ε) on the plan's device: x in [0, 1] (b, C, H, W), y = x + σ noise, ε (b, noise_dim).

    The noise depends on the split, the draw and the block, and on neither the model nor σ.
    """
    for start in range(0, len(x), BLOCK):
        clean = x[start : start + BLOCK].to(plan.device, plan.dtype) / levels
        key = (config.seed, "eval", split, draw, start)
        noise = normal((BLOCK, *x.shape[1:]), *key)[: len(clean)].to(clean)
        eps = normal((BLOCK, noise_dim), *key, "latent")[: len(clean)].to(clean)
        yield clean, clean + sigma * noise, eps


def denoisers(model: Estimator) -> dict[str, Denoiser]:
    """The estimators of X that a model offers, by the name they have in losses.parquet."""
    found: dict[str, Denoiser] = {"energy" if isinstance(model, Energy) else "direct": model}
    if isinstance(model, LatentEnergy):
        found["decoder"] = lambda y, eps: model.decode(model.sample_latent(y, eps)[0])
    return found


def own_estimator(model: str, offered: Collection[str]) -> str:
    """Of the estimators `offered` by the model of that name, the one it is judged by.

    That is Eq. 3 for an energy and a network's own estimate for others; the σ-VAE, trained on clean images alone, denoises
    through encoder and decoder (Sec. 2.2).
    """
    try:
        first = OBJECTIVES[get_model(model).objective].judged_by
    except UserError:  # tables outlive the plug-in that a model came from
        first = "energy"
    ranking = dict.fromkeys((first, "energy", "direct", "decoder"))
    return next((name for name in ranking if name in offered), min(offered))


@torch.no_grad()
def image_losses(
    denoise: Denoiser, noise_dim: int, x: Tensor, levels: int, sigma: float, split: str, config: EvalConfig, plan: Plan
) -> Tensor:
    """‖x - x̂(y)‖² of each image and draw: (N, draws) float64, on the CPU."""
    losses = torch.empty(len(x), config.draws, dtype=torch.float64)
    for draw in range(config.draws):
        at = 0
        for clean, y, eps in noisy_blocks(x, levels, sigma, noise_dim, split, draw, config, plan):
            with plan.autocast():
                x_hat = denoise(y, eps)
            squares = (clean - x_hat).square().flatten(1).double().sum(1)  # (b,)
            losses[at : at + len(clean), draw] = squares.cpu()
            at += len(clean)
    return losses


def clustered_mean(values: Tensor) -> Mean:
    """Mean of (N, draws) or (N,) with the standard error over images."""
    per_image = values.double().reshape(len(values), -1).mean(1)  # (N,)
    stderr = per_image.std().item() / math.sqrt(len(per_image)) if len(per_image) > 1 else math.nan
    return Mean(per_image.mean().item(), stderr)


def paired_difference(a: Tensor, b: Tensor) -> Mean:
    """Mean of a - b over images seen by both under the same noise, with its standard error. Each (N, draws) or (N,)."""
    return clustered_mean(a - b)
