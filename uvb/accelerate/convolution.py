"""`conv2d` with a hand-written second derivative, which ∇_θ ∇_y f needs.

The input gradient is differentiated with respect to the weight. Autograd would do this by a convolution with filters as large
as the image, and would transpose whole activations. Here one call computes the derivative as an ordinary weight gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from uvb.accelerate import products
from uvb.accelerate.patches import product

TENSOR_CORES = 8  # tensor cores process channels in groups of this size in half precision
_inner: ContextVar[bool] = ContextVar("uvb_inner_gradient", default=False)


@contextmanager
def inner_gradient() -> Iterator[None]:
    """Declare that backward passes inside this block compute only ∇_y f. Convolutions then skip their weight gradients.

    Use it around `torch.autograd.grad`, which would otherwise compute the weight gradients too. `torch.func.vjp` does not need
    it. The backward pass must run in this thread, as it does on a CPU.
    """
    token = _inner.set(True)
    try:
        yield
    finally:
        _inner.reset(token)


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d`, stride 1, no padding: (B, C, H, W) -> (B, D, H - k + 1, W - k + 1). Autocast changes the dtype.

    On a CPU the layout is channels-last, because oneDNN is fastest with it. In half precision it is channels-last too, because
    tensor cores want it. Two cases are computed as matrix products: few channels in half precision on a GPU
    (`uvb.accelerate.patches`), and few output pixels on a CPU if the plan says so (`uvb.accelerate.products`).
    """
    device = x.device.type
    if torch.compiler.is_compiling():  # dynamo loses the gradients of a `Function` inside torch.func
        return torch.conv2d(x, weight, bias)
    frozen = not weight.requires_grad  # read before the casts: inside torch.func a cast weight never requires a gradient
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # "meta" has no autocast
    if autocast and x.dtype is not torch.float64:
        x, weight, bias = (t.to(torch.get_autocast_dtype(device)) for t in (x, weight, bias))
    if device == "cpu" or x.element_size() == 2:
        weight = channels_last(weight)
    if device == "cuda" and x.element_size() == 2 and weight.shape[1] < TENSOR_CORES:
        return product(x, weight, bias)
    kernels = Products if products.applies(x, weight.shape[-1]) else Direct
    if frozen:  # the weight needs no gradient, so the hand-written derivative is not needed
        return kernels.forward(x, weight, bias)
    y: Tensor = _Convolution.apply(x, weight, bias, kernels)
    return y


def channels_last(kernel: Tensor) -> Tensor:
    """Copy a kernel (D, C, k, k) into the channels-last layout. A convolution with this copy works channels-last.

    oneDNN reads the layout from the strides. For one channel `contiguous` may keep the strides of NCHW, so this clones.
    """
    return kernel.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)


class Direct:
    """A convolution and its gradients by torch's own kernels."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return torch.conv2d(x, weight, bias)

    @staticmethod
    def gradients(g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
        """The gradients of ⟨g, conv2d(x, weight) + bias⟩ with respect to x, weight and bias, or None if not `wanted`."""
        one, zero = [1, 1], [0, 0]
        found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            g, x, weight, [len(weight)], one, zero, one, False, zero, 1, wanted
        )  # stride one, padding zero, dilation one, not transposed, output padding zero, 1 group
        return found


class Products(Direct):
    """A convolution and its gradients by matrix products."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return products.convolution(x, weight, bias)

    @staticmethod
    def gradients(g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
        return (
            products.input_gradient(g, x, weight) if wanted[0] else None,
            products.weight_gradient(g, x, weight) if wanted[1] else None,
            g.sum((0, 2, 3)) if wanted[2] else None,
        )


class _Convolution(Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, kernels: type[Direct]) -> Tensor:
        return kernels.forward(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, weight, _, ctx.kernels = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        if _inner.get() or wanted == [True, False, False]:  # this pass computes ∇_y f, which is differentiated again
            return _InputGradient.apply(g, x, weight, ctx.kernels), None, None, None
        return *ctx.kernels.gradients(g, x, weight, wanted), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.func.vmap(Direct.forward, in_dims=in_dims[:3])(*inputs[:3]), 0

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dw: Tensor | None, db: Tensor | None, _: None) -> Tensor:
        x, weight = ctx.saved_tensors
        change = torch.conv2d(torch.zeros_like(x) if dx is None else dx, weight, db)
        return change if dw is None else change + torch.conv2d(x, dw)


class _InputGradient(Function):
    """The transposed convolution of g with weight, which is linear in both. Only the shape of x matters."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, kernels: type[Direct]) -> Tensor:
        return _transposed(g, x, weight, kernels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, x, weight, ctx.kernels = inputs
        ctx.save_for_backward(g, weight)
        ctx.save_for_forward(g, x, weight)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        # ⟨v, _transposed(g, weight)⟩ = ⟨g, conv2d(v, weight)⟩: these are the gradients of the right side.
        g, weight = ctx.saved_tensors
        of_g = ctx.kernels.forward(v, weight) if ctx.needs_input_grad[0] else None
        of_weight = ctx.kernels.gradients(g, v, weight, [False, True, False])[1] if ctx.needs_input_grad[2] else None
        return of_g, None, of_weight, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.func.vmap(_transposed, in_dims=in_dims[:3])(*inputs[:3]), 0

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, dx: Tensor | None, dw: Tensor | None, _: None) -> Tensor:
        g, x, weight = ctx.saved_tensors
        change = _transposed(torch.zeros_like(g) if dg is None else dg, x, weight)
        return change if dw is None else change + _transposed(g, x, dw)


def _transposed(g: Tensor, x: Tensor, weight: Tensor, kernels: type[Direct] = Direct) -> Tensor:
    """The gradient of ⟨g, conv2d(x, weight)⟩ with respect to x."""
    gradient = kernels.gradients(g, x, weight, [True, False, False])[0]
    assert gradient is not None
    return gradient
