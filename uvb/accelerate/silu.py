"""SiLU in bf16 on a CPU, with hand-written first and second derivatives, which ∇_θ ∇_y f needs.

Autograd's second derivative takes a dozen passes over memory. Here the forward pass keeps s(x) and φ'(x), and both derivatives
are computed from these.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def applies(x: Tensor) -> bool:
    """Whether to use `silu` for `x`: in bf16 on a CPU, in uncompiled code. In compiled code torch's SiLU is as fast."""
    return x.dtype is torch.bfloat16 and x.device.type == "cpu" and not torch.compiler.is_compiling()


def silu(x: Tensor) -> Tensor:
    """φ(x) = x s(x) with the logistic function s. It has two derivatives. A third derivative raises RuntimeError."""
    y: Tensor = _Silu.apply(x)[0]
    return y


class _Silu(Function):
    """x -> φ(x), s(x), φ'(x) = φ + s (1 - φ)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = torch.sigmoid(x)
        y = x * s
        return y, s, torch.lerp(y, y.new_ones(()).expand_as(y), s)

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
    """v, g, x -> v φ'(x), v g φ''(x). The code uses g φ'' = (1 - s) g φ' + s (g - g φ'), from φ'' = s + φ' - 2 s φ'."""

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
