"""The batches of a training: the images, their order and their noise. They do not depend on the number of workers."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from uvb.data.image_set import ImageSet
from uvb.data.stream import rows_on
from uvb.noise import generator, normal
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.parallel import rank_and_world


class Batch(NamedTuple):
    """One worker's slice of a global batch."""

    x: Tensor  # (b, C, H, W), clean images in [0, 1]
    noise: Tensor  # (b, C, H, W), standard normal
    eps: Tensor  # (b, noise_dim), standard normal
    weight: Tensor  # (b,): W / n with W workers and n images in the global batch, because DDP divides by W. Padding has 0.


class Batches:
    """This worker's slices of the global batches of one training.

    Every worker draws the noise of the whole batch and takes its slice. So the noise does not depend on the number of workers.
    The last batch of an epoch is padded with zero images of weight 0. So shapes never change.
    """

    def __init__(self, spec: RunSpec, plan: Plan, images: ImageSet, noise_dim: int) -> None:
        rank, self.world = rank_and_world()
        self.spec, self.plan, self.levels, self.noise_dim = spec, plan, images.levels, noise_dim
        pixels = images.train[: spec.data.train_images]
        self.pixels = rows_on(pixels, torch.device(plan.device))  # rows of (N, C, H, W), uint8
        self.size = spec.recipe.batch_size
        self.width = math.ceil(self.size / self.world)  # the batch is padded to a multiple of the number of workers
        self.mine = slice(rank * self.width, (rank + 1) * self.width)
        self.epoch, self.order = -1, torch.empty(0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of `Batch.x`, (b, C, H, W)."""
        return (self.width, *self.spec.data.shape)

    def begin(self, epoch: int, step: int) -> None:
        """Go to batch `step` of `epoch`. If the images are streamed, reading ahead starts there."""
        order = torch.randperm(self.spec.data.train_images, generator=generator(self.spec.seed, "order", epoch))
        self.epoch, self.order = epoch, order.to(self.pixels.device)  # (N,), drawn on the CPU, so the same for every device
        self.pixels.begin(self.order, self.size, step, self.mine)

    def __getitem__(self, step: int) -> Batch:
        """Batch `step` of the epoch."""
        index = self.order[step * self.size : (step + 1) * self.size]
        x = self.pixels[index[self.mine]].to(self.plan.dtype) / self.levels
        weight = x.new_full((len(x),), self.world / len(index))
        noise, eps = self._draw("noise", step, *self.spec.data.shape), self._draw("latent", step, self.noise_dim)
        return Batch(*(padded(part, self.width) for part in (x, noise, eps, weight)))

    def _draw(self, purpose: str, step: int, *shape: int) -> Tensor:
        key = (self.spec.seed, purpose, self.epoch, step)
        return normal((self.size, *shape), *key, device=self.plan.device)[self.mine].to(self.plan.dtype)


def padded(rows: Tensor, count: int) -> Tensor:
    """Append zeros to `rows` (n, ...) up to length `count`."""
    missing = count - len(rows)
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows
