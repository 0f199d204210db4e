"""Clip the gradients of a step, and measure how far apart two sets of gradients are."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Gradients = Callable[..., Tensor]  # (x, noise, eps, weight) -> loss; leaves the parameters' gradients in .grad


def clip(parameters: Sequence[Tensor], longest: float) -> None:
    """Scale the gradients of one model, in place, so that their total norm is at most `longest`.

    On a CPU, gradients that are short enough are not multiplied. This saves a pass over all weights. On a GPU all gradients are
    multiplied, because the host would have to wait for the norm before it could decide.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if norm.is_cuda or not norm <= longest:  # true for nan, too: then all gradients become nan, and the loop finds a nan loss
        nn.utils.clip_grads_with_norm_(parameters, longest, norm)


def distance(got: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """The norm of the difference, divided by the norm of `expected` if that norm is not 0.

    The distance is infinite if a gradient is None on one side only.
    """
    if any((a is None) != (b is None) for a, b in zip(got, expected, strict=True)):
        return float("inf")
    ours, right = ([g for g in gradients if g is not None] for gradients in (got, expected))
    apart, norm = nn.utils.get_total_norm(torch._foreach_sub(ours, right)), nn.utils.get_total_norm(right)
    return float(apart / norm) if norm else float(apart)
