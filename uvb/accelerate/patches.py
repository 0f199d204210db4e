"""Extract an image's overlapping patches, so that a convolution becomes one matrix product.

A GPU's tensor cores take eight channels at a time, but the paper's first layers have one or three input channels. With cuDNN
these layers take a sixth of a step (UVB and DEEN, MNIST, H200). As matrix products they take less than half of this time.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d`, stride 1, no padding: (B, C, H, W), (D, C, k, k) -> (B, D, H - k + 1, W - k + 1), channels-last.

    It can be differentiated any number of times, because `Patches` and `Overlay` are linear and transposes of each other.
    """
    taken: Tensor = Patches.apply(x, weight.shape[-1])
    return F.linear(taken.flatten(3), weight.flatten(1), bias).movedim(-1, 1)


class Patches(Function):
    """All k×k patches of the images: (B, C, H, W) -> (B, H - k + 1, W - k + 1, C, k, k)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, k: int) -> Tensor:
        return x.unfold(2, k, 1).unfold(3, k, 1).movedim(1, 3).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.k = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return Overlay.apply(g), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> Tensor:
        return Patches.forward(dx, ctx.k)


class Overlay(Function):
    """(B, h, w, C, k, k) -> (B, C, h + k - 1, w + k - 1): add every patch at its place in the image.

    The result is a sum of k² shifted images, so it has the same bits every time. On a GPU torch's own function adds atomically,
    in an order that varies.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor) -> Tensor:
        k = g.shape[-1]
        moved = g.movedim(3, 1)  # (B, C, h, w, k, k)
        shifts = ((i, j) for i in range(k) for j in range(k))
        parts = [F.pad(moved[..., i, j], (j, k - 1 - j, i, k - 1 - i)) for i, j in shifts]
        return sum(parts[1:], parts[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.k = inputs[0].shape[-1]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return Patches.apply(v, ctx.k)

    @staticmethod
    def jvp(ctx: Any, dg: Tensor) -> Tensor:
        return Overlay.forward(dg)
