"""`conv2d` with the second derivative that ∇_θ ∇_y f needs written out.

Autograd's own differentiates an input gradient with respect to the weight by a convolution whose filters are as large as
the image, and transposes whole activations for it. Here that is an ordinary weight gradient, one call.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from uvb.accelerate.patches import product

TENSOR_CORES = 8  # channels that they take at a time, in half precision


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d`, stride 1, no padding: (B, C, H, W) -> (B, D, H - k + 1, W - k + 1), in autocast's dtype where that is on.

    Channels-last on a CPU and in half precision, as oneDNN's and the tensor cores' kernels want it; few channels in half
    precision on a GPU as one product (`uvb.accelerate.patches`).
    """
    device = x.device.type
    if torch.compiler.is_compiling():  # dynamo drops gradients of a `Function` within torch.func's
        return torch.conv2d(x, weight, bias)
    frozen = not weight.requires_grad  # asked of the parameter itself: within torch.func its copies do not tell
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # "meta" has none
    if autocast and x.dtype is not torch.float64:
        x, weight, bias = (t.to(torch.get_autocast_dtype(device)) for t in (x, weight, bias))
    if device == "cpu" or x.element_size() == 2:
        weight = channels_last(weight)
    if device == "cuda" and x.element_size() == 2 and weight.shape[1] < TENSOR_CORES:
        return product(x, weight, bias)
    if frozen:  # nothing will be differentiated twice
        return torch.conv2d(x, weight, bias)
    y: Tensor = _Convolution.apply(x, weight, bias)
    return y


def channels_last(kernel: Tensor) -> Tensor:
    """The same kernel (D, C, k, k) laid out channels-last; a convolution with it works, and answers, channels-last.

    A clone, since with one channel `contiguous` may return what has NCHW's strides, and oneDNN reads the layout off those.
    """
    return kernel.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)


def _backward(g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """Gradients of ⟨g, conv2d(x, weight) + bias⟩ with respect to x, weight, bias."""
    one, zero = [1, 1], [0, 0]
    gradients: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)], one, zero, one, False, zero, 1, wanted
    )
    return gradients


def _transposed(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The first of them."""
    gradient = _backward(g, x, weight, [True, False, False])[0]
    assert gradient is not None
    return gradient


class _Convolution(Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.conv2d(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        if ctx.needs_input_grad == (True, False, False):  # ∇_y f: the one that is differentiated again
            return _InputGradient.apply(g, x, weight), None, None
        return _backward(g, x, weight, list(ctx.needs_input_grad))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return torch.func.vmap(_Convolution.forward, in_dims=in_dims)(*inputs), 0

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dw: Tensor | None, db: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        change = torch.conv2d(torch.zeros_like(x) if dx is None else dx, weight, db)
        return change if dw is None else change + torch.conv2d(x, dw)


class _InputGradient(Function):
    """g, weight -> the transposed convolution of g. Linear in both; x only lends its shape."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return _transposed(g, x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, x, weight = inputs
        ctx.save_for_backward(g, weight)
        ctx.save_for_forward(g, x, weight)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, weight = ctx.saved_tensors
        of_g = torch.conv2d(v, weight) if ctx.needs_input_grad[0] else None
        of_weight = _backward(g, v, weight, [False, True, False])[1] if ctx.needs_input_grad[2] else None
        return of_g, None, of_weight

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        return torch.func.vmap(_InputGradient.forward, in_dims=in_dims)(*inputs), 0

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dx: Tensor | None, dw: Tensor | None) -> Tensor:
        g, x, weight = ctx.saved_tensors
        change = _transposed(torch.zeros_like(g) if dg is None else dg, x, weight)
        return change if dw is None else change + _transposed(g, x, dw)
