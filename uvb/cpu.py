"""bf16 on a CPU: convolutions and SiLU with the derivatives that ∇_θ ∇_y f needs written out, and memory that is kept.

Autograd's own second derivatives give the same numbers by more passes over memory: SiLU's takes a dozen, a convolution's
transposes whole activations. Here activations are channels-last throughout, as oneDNN wants them, a convolution's weight
gradient is one call, and the derivatives of SiLU come from two tensors its forward pass leaves behind, s(x) and φ'(x).
"""

import ctypes
import sys
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
DEVICES: tuple[str, ...] = ("cpu",)  # where layers take this path; `benchmarks/gpu_variants.py` tries it on CUDA too


def keep_large_buffers() -> None:
    """Tell glibc's malloc to keep freed blocks of many MB, which the next step asks for again.

    Otherwise each is mapped anew at every step, and the kernel zeroes its pages. Without effect except on Linux with glibc.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def applies(x: Tensor) -> bool:
    """Whether a layer on `x` should take this file's path: bf16 autocast on a CPU, run eagerly."""
    device = x.device.type
    return (
        device in DEVICES
        and not torch.compiler.is_compiling()
        and torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) is torch.bfloat16
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d`, stride 1, no padding, in bf16 and channels-last: (B, C, H, W) -> (B, D, H - k + 1, W - k + 1)."""
    dtype = torch.bfloat16
    y: Tensor = _Convolution.apply(x.to(dtype), channels_last(weight.to(dtype)), bias.to(dtype))
    return y


def channels_last(kernel: Tensor) -> Tensor:
    """The same kernel (D, C, k, k) laid out channels-last; a convolution with it works, and answers, channels-last.

    A clone, since with one channel `contiguous` may return what has NCHW's strides, and oneDNN reads the layout off those.
    """
    return kernel.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)


def silu(x: Tensor) -> Tensor:
    """φ(x) = x s(x), s the logistic function; two derivatives, and a clear error at the third."""
    y: Tensor = _Silu.apply(x)[0]
    return y


def _convolution_backward(g: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
    """Gradients of ⟨g, conv2d(x, weight) + bias⟩ with respect to x, weight, bias."""
    one, zero = [1, 1], [0, 0]
    gradients: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)], one, zero, one, False, zero, 1, wanted
    )
    return gradients


class _Convolution(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.conv2d(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        if ctx.needs_input_grad == (True, False, False):  # ∇_y f: the one that is differentiated again
            return _ConvolutionInputGradient.apply(g, x, weight), None, None
        return _convolution_backward(g, x, weight, list(ctx.needs_input_grad))


class _ConvolutionInputGradient(Function):
    """g, weight -> the transposed convolution of g. Linear in both; x only lends its shape."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        gradient = _convolution_backward(g, x, weight, [True, False, False])[0]
        assert gradient is not None
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        g, _, weight = inputs
        ctx.save_for_backward(g, weight)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, weight = ctx.saved_tensors
        of_g = torch.conv2d(v, weight) if ctx.needs_input_grad[0] else None
        of_weight = _convolution_backward(g, v, weight, [False, True, False])[1] if ctx.needs_input_grad[2] else None
        return of_g, None, of_weight


class _Silu(Function):
    """x -> φ(x), s(x), φ'(x) = s (1 + x - φ)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = torch.sigmoid(x)
        y = x * s
        return y, s, torch.addcmul(s, s, x - y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, s, slope = output
        ctx.mark_non_differentiable(s, slope)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], s, slope)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: None) -> Any:
        return None if g is None else _SiluGradient.apply(g, *ctx.saved_tensors)


class _SiluGradient(Function):
    """g, x -> g φ'(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, s: Tensor, slope: Tensor) -> Tensor:
        return g * slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return *_SiluSecond.apply(v, *ctx.saved_tensors), None, None


class _SiluSecond(Function):
    """v, g, x -> v φ'(x), v g φ''(x), and φ'' = s + φ' - 2 s φ', so g φ'' = (1 - s) g φ' + s (g - g φ')."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor, g: Tensor, x: Tensor, s: Tensor, slope: Tensor, g_slope: Tensor) -> tuple[Tensor, Tensor]:
        return v * slope, torch.lerp(g_slope, g - g_slope, s).mul_(v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError("SiLU's third derivative is not written out for bf16 on a CPU; compute it in float32")
