"""The exact Bayes estimator (Eq. 1) when the prior is a finite set of images, in blocks: the (B, N) matrix never exists."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy

BLOCK = 2048  # images of y, and of the training set, in one matrix product: 16 MB of weights in float32


def posterior_mean(y: Tensor, train: Tensor, sigma: float, *, levels: int = 255, block: int = BLOCK) -> Tensor:
    """E[X | Y = y] for X uniform on `train` and Y = X + N(0, σ² I): the mean of `train` under softmax(-‖y - x_i‖²/2σ²).

    Its loss on `train` is a floor under any model's training loss; its loss on other images is a non-parametric
    reference, no bound.

    Args:
        y: (B, C, H, W), float32 or float64; its dtype and device are those of the arithmetic and of the result.
        train: (N, C, H, W), floating point pixels in [0, 1], or uint8 pixels read as value / `levels`.
        sigma: noise level.
        levels: the uint8 value that means 1. Not used for a floating point `train`.
        block: images of either side held against each other at once; see `working_bytes`.

    Returns:
        (B, C, H, W), differentiable in y (autograd then keeps every block).

    Raises:
        UserError: for an empty `train`, shapes that differ, another dtype, or a sigma not above 0.
    """
    _check(y, train, sigma)
    with torch.autocast(y.device.type, enabled=False):  # bf16 logits would be wrong by whole nats
        means = [_block_mean(part.flatten(1), train, float(sigma), levels, block) for part in y.split(block)]
    return torch.cat(means).reshape(y.shape) if means else y.clone()


def negative_log_density(y: Tensor, train: Tensor, sigma: float, *, levels: int = 255, block: int = BLOCK) -> Tensor:
    """-log p(y) in nats for X uniform on `train` and Y = X + N(0, σ² I), constants included; arguments as `posterior_mean`.

    Returns:
        (B,), differentiable in y (autograd then keeps every block).
    """
    _check(y, train, sigma)
    constant = math.log(len(train)) + 0.5 * y[0].numel() * math.log(2 * math.pi * sigma**2) if len(y) else 0.0
    with torch.autocast(y.device.type, enabled=False):
        parts = [_block_log_sum(part.flatten(1), train, float(sigma), levels, block) for part in y.split(block)]
    squares = y.flatten(1).square().sum(1) / (2 * sigma**2)  # (B,)
    return constant + squares - (torch.cat(parts) if parts else squares)


def working_bytes(batch: int, train_images: int, dimension: int, *, block: int = BLOCK, itemsize: int = 4) -> int:
    """Bytes `posterior_mean` needs at its peak besides `y` and `train` (no autograd), for d = `dimension` pixels.

    A block of y against one of the training set holds: that block in floating point, logits and weights, the mean so
    far, the block's mean and the merged one; and the result. The whole matrix would take itemsize · batch · train_images.
    """
    rows, columns = min(batch, block), min(train_images, block)
    return itemsize * (columns * dimension + 2 * rows * columns + 3 * rows * dimension + 2 * batch * dimension)


class EmpiricalBayes(Energy):
    """The exact energy -log p(y) of a finite training set, and its estimator, the posterior mean (Eq. 1-3).

    Deterministic (`noise_dim` = 0). The training set is a buffer that moves with the module but is not part of its state
    dict. A uint8 set stays uint8: the dtype of `y` decides that of the arithmetic.
    """

    train_images: Tensor

    def __init__(self, train_images: Tensor, sigma: float, *, levels: int = 255, block: int = BLOCK) -> None:
        super().__init__(sigma)
        _check(train_images, train_images, sigma)
        self.register_buffer("train_images", train_images, persistent=False)
        self.levels, self.block = levels, block

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return negative_log_density(y, self.train_images, float(self.sigma), levels=self.levels, block=self.block)

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        """∇f(y) = (y - x̂(y)) / σ², in closed form: no graph through the blocks."""
        x_hat: Tensor = self(y, eps)
        return (y - x_hat) / self.sigma**2

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        return posterior_mean(y, self.train_images, float(self.sigma), levels=self.levels, block=self.block)


def _check(y: Tensor, train: Tensor, sigma: float) -> None:
    if len(train) == 0:
        raise UserError("the training set is empty: the exact Bayes estimator needs at least one image")
    if y.shape[1:] != train.shape[1:]:
        raise UserError(
            f"images y are {tuple(y.shape[1:])} and training images {tuple(train.shape[1:])}; both must be of one shape"
        )
    if y.is_floating_point() and y.dtype not in (torch.float32, torch.float64):
        raise UserError(f"images y are {y.dtype}; the exact Bayes estimator works in float32 or float64, so convert them")
    if not (sigma > 0 and math.isfinite(sigma)):
        raise UserError(f"sigma = {sigma}: the noise level must be a finite number above 0, e.g. 1.0")


def _logits(y: Tensor, train: Tensor, sigma: float, levels: int, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(b, n) logits -‖y - x_i‖²/2σ² without the term of y alone, which no softmax sees, and the (n, d) images of a block."""
    for part in train.split(block):
        x = part.flatten(1).to(device=y.device, dtype=y.dtype)  # (n, d)
        if not part.is_floating_point():
            x = x / levels
        half_squares = 0.5 * x.square().sum(1)  # (n,)
        yield torch.addmm(-half_squares / sigma**2, y, x.T, alpha=1 / sigma**2), x


def _block_log_sum(y: Tensor, train: Tensor, sigma: float, levels: int, block: int) -> Tensor:
    """(b, d) -> (b,): log Σ_i exp(logit_i)."""
    total: Tensor | None = None
    for logits, _ in _logits(y, train, sigma, levels, block):
        part = logits.logsumexp(1)
        total = part if total is None else torch.logaddexp(total, part)
    assert total is not None
    return total


def _block_mean(y: Tensor, train: Tensor, sigma: float, levels: int, block: int) -> Tensor:
    """(b, d) -> (b, d). The mean over a union of blocks is the convex combination of their means, weighted by their sums."""
    floor = -80.0 if y.dtype == torch.float32 else -700.0
    mean: Tensor | None = None
    total: Tensor | None = None
    for logits, x in _logits(y, train, sigma, levels, block):
        # One shift by the row's maximum, so one exponential serves the mean and the sum. No weight goes under exp(floor),
        # which no sum notices: subnormal numbers would slow the matrix product down several times at small sigma.
        top = logits.detach().amax(1, keepdim=True)
        weights = torch.exp((logits - top).clamp_min(floor))  # (b, n)
        summed = weights.sum(1, keepdim=True)
        part, part_total = (weights @ x) / summed, top + summed.log()
        if mean is None or total is None:
            mean, total = part, part_total
        else:
            mean = torch.lerp(mean, part, torch.sigmoid(part_total - total))
            total = torch.logaddexp(total, part_total)
    assert mean is not None
    return mean
