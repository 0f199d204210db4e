"""The exact Bayes estimator (Eq. 1) for a finite set of images, computed in blocks, so that no (B, N) matrix is needed."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy

BLOCK = 2048  # one matrix product compares this many images y with this many training images: 16 MB in float32


def posterior_mean(y: Tensor, train: Tensor, sigma: float, *, levels: int = 255, block: int = BLOCK) -> Tensor:
    """E[X | Y = y] for X uniform on `train` and Y = X + N(0, σ² I).

    It is the mean of the training images x_i with the weights softmax(-‖y - x_i‖²/2σ²). No estimator has a lower loss on
    `train`. On other images the loss of `posterior_mean` is a non-parametric reference, not a bound.

    Args:
        y: (B, C, H, W), float32 or float64. The computation and the result use the dtype and the device of `y`.
        train: (N, C, H, W), floating point pixels in [0, 1], or uint8: a value v stands for the pixel v / `levels`.
        sigma: noise level.
        levels: the uint8 value that means 1. It is not used for a floating point `train`.
        block: how many images `y`, and how many of `train`, to compare at once; see `working_bytes`.

    Returns:
        (B, C, H, W), differentiable with respect to y (then autograd keeps every block in memory).

    Raises:
        UserError: `train` is empty, shapes differ, `y` has another dtype, or sigma is not above 0.
    """
    _check(y, train, sigma)
    with torch.autocast(y.device.type, enabled=False):  # bf16 logits are wrong by whole nats
        means = [_block_mean(part.flatten(1), train, float(sigma), levels, block) for part in y.split(block)]
    return torch.cat(means).reshape(y.shape) if means else y.clone()


def negative_log_density(y: Tensor, train: Tensor, sigma: float, *, levels: int = 255, block: int = BLOCK) -> Tensor:
    """-log p(y) in nats, normalized, for X uniform on `train` and Y = X + N(0, σ² I).

    The arguments and errors are the same as for `posterior_mean`.

    Returns:
        (B,), differentiable with respect to y (then autograd keeps every block in memory).
    """
    _check(y, train, sigma)
    constant = math.log(len(train)) + 0.5 * y[0].numel() * math.log(2 * math.pi * sigma**2) if len(y) else 0.0
    with torch.autocast(y.device.type, enabled=False):
        parts = [_block_log_sum(part.flatten(1), train, float(sigma), levels, block) for part in y.split(block)]
    squares = y.flatten(1).square().sum(1) / (2 * sigma**2)  # (B,)
    return constant + squares - (torch.cat(parts) if parts else squares)


def working_bytes(batch: int, train_images: int, dimension: int) -> int:
    """The largest memory in bytes that `posterior_mean` needs besides `y` and `train`, in float32 and without autograd.

    The memory holds a block of the training set in floating point, the logits, the weights, three means (of the blocks so far,
    of this block, and of both), and the result. The whole (B, N) matrix would take 4 · batch · train_images bytes.

    Args:
        dimension: the number of pixels of an image.
    """
    rows, columns = min(batch, BLOCK), min(train_images, BLOCK)
    return 4 * (columns * dimension + 2 * rows * columns + 3 * rows * dimension + 2 * batch * dimension)


class EmpiricalBayes(Energy):
    """The exact energy -log p(y) of a finite training set, and its estimator, the posterior mean (Eq. 1-3).

    The energy is deterministic (`noise_dim` = 0). The training set is a buffer that moves with the module, but is not in its
    state dict. A uint8 set stays uint8. The computation uses the dtype of `y`.
    """

    train_images: Tensor

    def __init__(self, train_images: Tensor, sigma: float, *, levels: int = 255, block: int = BLOCK) -> None:
        super().__init__(sigma)
        _check(train_images[:0].float(), train_images, sigma)
        self.register_buffer("train_images", train_images, persistent=False)
        self.levels, self.block = levels, block

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return negative_log_density(y, self.train_images, float(self.sigma), levels=self.levels, block=self.block)

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        """∇f(y) = (y - x̂(y)) / σ². This closed form needs no autograd through the blocks."""
        x_hat: Tensor = self(y, eps)
        return (y - x_hat) / self.sigma**2

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        return posterior_mean(y, self.train_images, float(self.sigma), levels=self.levels, block=self.block)


def _check(y: Tensor, train: Tensor, sigma: float) -> None:
    if len(train) == 0:
        raise UserError("the training set is empty: the exact Bayes estimator needs at least one image")
    if y.shape[1:] != train.shape[1:]:
        raise UserError(
            f"images y are {tuple(y.shape[1:])} and training images {tuple(train.shape[1:])}; both must have the same shape"
        )
    if y.dtype not in (torch.float32, torch.float64):
        raise UserError(f"images y are {y.dtype}; the exact Bayes estimator works in float32 or float64, so convert them")
    if not (sigma > 0 and math.isfinite(sigma)):
        raise UserError(f"sigma = {sigma}: the noise level must be a finite number above 0, e.g. 1.0")


def _logits(y: Tensor, train: Tensor, sigma: float, levels: int, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each block of the training set the logits -‖y - x_i‖²/2σ² (b, n) and the images (n, d).

    The logits leave out the term -‖y‖²/2σ², because it cancels in a softmax.
    """
    for part in train.split(block):
        x = part.flatten(1).to(device=y.device, dtype=y.dtype)  # (n, d)
        if not part.is_floating_point():
            x = x / levels
        half_squares = 0.5 * x.square().sum(1)  # (n,)
        yield torch.addmm(-half_squares / sigma**2, y, x.T, alpha=1 / sigma**2), x


def _block_log_sum(y: Tensor, train: Tensor, sigma: float, levels: int, block: int) -> Tensor:
    """(b, d) -> (b,): log Σ_i exp(logit_i)."""
    return torch.stack([logits.logsumexp(1) for logits, _ in _logits(y, train, sigma, levels, block)]).logsumexp(0)


def _block_mean(y: Tensor, train: Tensor, sigma: float, levels: int, block: int) -> Tensor:
    """The posterior mean, (b, d) -> (b, d). It is the average of the blocks' means, weighted by their sums of weights."""
    floor = -80.0 if y.dtype == torch.float32 else -700.0
    mean: Tensor | None = None
    total: Tensor | None = None
    for logits, x in _logits(y, train, sigma, levels, block):
        # Shift each row by its maximum, so that one exponential gives both the mean and the sum. Weights below exp(floor) are
        # too small to change a sum, but at small sigma they would be subnormal numbers, which make the product much slower.
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
