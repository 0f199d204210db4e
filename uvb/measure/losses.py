"""Denoising losses with standard errors. Every model is measured on the same images and noise."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models.base import Energy, Estimator, LatentEnergy
from uvb.models.registry import get_model
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.training.objectives import OBJECTIVES

BLOCK = 500  # images in a block; the noise of each block has its own key, so another block size would change the noise

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (y, eps) -> x_hat


Block = tuple[Tensor, Tensor, Tensor]  # x in [0, 1] (b, C, H, W), y = x + σ noise, ε (b, noise_dim)


@dataclass(frozen=True)
class EvalConfig:
    """How to measure losses.

    Attributes:
        train_images: measure on at most this many training images. 0: all.
        test_images: measure on at most this many test images. 0: all.
        draws: noise draws of each image.
        seed: keys the choice of the images and the noise.
    """

    train_images: int = 10_000
    test_images: int = 0
    draws: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error over images. The noise draws of an image are averaged first."""

    value: float
    stderr: float


def evaluation_images(images: ImageSet, split: str, config: EvalConfig, train_images: int | None = None) -> Tensor:
    """The images of a split on which every model is measured, uint8 (N, C, H, W).

    Args:
        train_images: use only the first `train_images` training images, on which the models were trained. None: all.
    """
    pool = images.train[:train_images] if split == "train" else images.test
    limit = config.train_images if split == "train" else config.test_images
    return pool if not limit or limit >= len(pool) else pool[evaluation_indices(len(pool), split, limit, config.seed)]


def evaluation_indices(available: int, split: str, limit: int, seed: int) -> Tensor:
    """Choose `limit` of the `available` images at random, because the first may be untypical: (limit,) int64, sorted."""
    return torch.randperm(available, generator=generator(seed, "eval images", split))[:limit].sort().values


@dataclass(frozen=True, eq=False)
class NoisyImages:
    """Images of a split with noise. The noise is the same for every model and every σ.

    Attributes:
        pixels: uint8, (N, C, H, W).
        levels: the pixel value that means 1.
        sigma: noise level.
        split: the name of the split, such as "train" or "test". It is part of the noise's key.
        config: the number of noise draws, and the seed.
        plan: the device and the dtype of the blocks.
    """

    pixels: Tensor
    levels: int
    sigma: float
    split: str
    config: EvalConfig
    plan: Plan

    @classmethod
    def of(
        cls, images: ImageSet, split: str, sigma: float, config: EvalConfig, plan: Plan, train_images: int | None = None
    ) -> "NoisyImages":
        """Add noise to the images that `evaluation_images` chooses."""
        pixels = evaluation_images(images, split, config, train_images)
        return cls(pixels, images.levels, sigma, split, config, plan)

    def __len__(self) -> int:
        return len(self.pixels)

    def blocks(self, noise_dim: int, draw: int = 0) -> Iterator[Block]:
        """Yield (x, y, ε) in blocks of `BLOCK` images, for the noise draw with this number."""
        for start in range(0, len(self), BLOCK):
            clean = self.pixels[start : start + BLOCK].to(self.plan.device, self.plan.dtype) / self.levels
            key = (self.config.seed, "eval", self.split, draw, start)
            noise = normal((BLOCK, *clean.shape[1:]), *key)[: len(clean)].to(clean)
            eps = normal((BLOCK, noise_dim), *key, "latent")[: len(clean)].to(clean)
            yield clean, clean + self.sigma * noise, eps

    def measured(
        self, noise_dim: int, measure: Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]], draws: int | None = None
    ) -> dict[str, Tensor]:
        """Call ``measure(x, y, eps)`` on every block of every noise draw. Collect the tensors (b,) that it returns, by name.

        Args:
            draws: the number of noise draws. None: the number in `config`.

        Returns:
            A tensor (N, draws) for each name, float64, on the CPU.
        """
        draws = draws or self.config.draws
        found: defaultdict[str, list[Tensor]] = defaultdict(list)
        for draw in range(draws):
            for block in self.blocks(noise_dim, draw):
                for name, values in measure(*block).items():
                    found[name].append(values.double().cpu())
        return {name: torch.cat(parts).reshape(draws, len(self)).T for name, parts in found.items()}


def denoisers(model: Estimator) -> dict[str, Denoiser]:
    """The estimators of X that a model has, by their names in losses.parquet."""
    found: dict[str, Denoiser] = {"energy" if isinstance(model, Energy) else "direct": model}
    if isinstance(model, LatentEnergy):
        found["decoder"] = lambda y, eps: model.decode(model.sample_latent(y, eps)[0])
    return found


def own_estimator(model: str, offered: Collection[str]) -> str:
    """The name of the estimator that stands for `model` in comparisons, chosen from the names in `offered`.

    For an energy this is the estimator of Eq. 3 ("energy"), and for another network its output ("direct"). The σ-VAE is trained
    only on clean images, so its decoder(encoder(y)) ("decoder", Sec. 2.2) stands for it.
    """
    try:
        first = OBJECTIVES.get(get_model(model).objective).judged_by
    except UserError:  # the tables of a model remain after its plug-in was uninstalled
        first = "energy"
    return next((name for name in (first, "energy", "direct", "decoder") if name in offered), min(offered))


@torch.no_grad()
def image_losses(denoise: Denoiser, noise_dim: int, noisy: NoisyImages) -> Tensor:
    """‖x - x̂(y)‖² of each image and draw: (N, draws) float64, on the CPU."""

    def squares(clean: Tensor, y: Tensor, eps: Tensor) -> dict[str, Tensor]:
        with noisy.plan.autocast():
            x_hat = denoise(y, eps)
        return {"loss": (clean - x_hat).square().flatten(1).double().sum(1)}

    return noisy.measured(noise_dim, squares)["loss"]


def clustered_mean(values: Tensor) -> Mean:
    """The mean of values (N, draws) or (N,), with its standard error over the N images. For one image the error is nan."""
    per_image = values.double().reshape(len(values), -1).mean(1)  # (N,)
    stderr = per_image.std().item() / math.sqrt(len(per_image)) if len(per_image) > 1 else math.nan
    return Mean(per_image.mean().item(), stderr)
