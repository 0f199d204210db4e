"""Compute convolutions with few output pixels as matrix products, on a CPU.

oneDNN's kernels are made for large images. In the last layers of a network for 8×8 images they can be 40 times slower than a
product of the image's patches with the kernel (`benchmarks/cpu/small_images.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

FEW_PIXELS = 16  # products are faster for outputs of at most 4×4 pixels, in fp32 and in bf16

_enabled: ContextVar[bool] = ContextVar("uvb_products", default=False)


@contextmanager
def products(enabled: bool) -> Iterator[None]:
    """If `enabled`, compute convolutions with few output pixels as matrix products inside this block."""
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def applies(x: Tensor, kernel: int) -> bool:
    """Whether to convolve x (B, C, H, W) by a matrix product: if `products` enables it, on a CPU, with few output pixels."""
    few = (x.shape[-2] - kernel + 1) * (x.shape[-1] - kernel + 1) <= FEW_PIXELS
    return few and _enabled.get() and x.device.type == "cpu"


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv2d`, stride 1, no padding: (B, C, H, W), (D, C, k, k) -> (B, D, h, w), channels-last."""
    rows, kernel = _patches(x, weight.shape[-1]), _matrix(weight)
    y = rows @ kernel.T if bias is None else torch.addmm(bias, rows, kernel.T)
    height, width = x.shape[2] - weight.shape[2] + 1, x.shape[3] - weight.shape[3] + 1
    return y.reshape(len(x), height, width, -1).permute(0, 3, 1, 2)


def input_gradient(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of ⟨g, convolution(x, weight)⟩ with respect to x, (B, C, H, W). Only the shape of x is used."""
    k, (batch, _, h, w) = weight.shape[-1], g.shape
    parts = (_rows(g) @ _matrix(weight)).reshape(batch, h, w, k, k, x.shape[1])
    found = parts.new_zeros(batch, x.shape[2], x.shape[3], x.shape[1])
    for i in range(k):
        for j in range(k):
            found[:, i : i + h, j : j + w] += parts[:, :, :, i, j]
    return found.permute(0, 3, 1, 2)


def weight_gradient(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of ⟨g, convolution(x, weight)⟩ with respect to `weight`, (D, C, k, k). Only its shape is used."""
    d, c, k, _ = weight.shape
    return (_rows(g).T @ _patches(x, k)).reshape(d, k, k, c).permute(0, 3, 1, 2)


def _patches(x: Tensor, k: int) -> Tensor:
    """Every patch of x as a row: (B, C, H, W) -> (B h w, k k C)."""
    windows = x.permute(0, 2, 3, 1).unfold(1, k, 1).unfold(2, k, 1)  # (B, h, w, C, k, k)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, k * k * x.shape[1])


def _matrix(weight: Tensor) -> Tensor:
    """(D, C, k, k) -> (D, k k C)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _rows(y: Tensor) -> Tensor:
    """(B, D, h, w) -> (B h w, D)."""
    return y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])
