"""The gradients a step needs: clipped, and how far apart two ways of computing them are."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Gradients = Callable[..., Tensor]  # (x, noise, eps, weight) -> loss, the parameters' gradients left in .grad


def clip(parameters: Sequence[Tensor], longest: float) -> None:
    """Scale the gradients of one model, in place, so that their norm together is at most `longest`.

    On a CPU one that is short enough is left alone: multiplying it by 1 would be a pass over all weights. On a GPU to look at
    the norm would mean to wait for it.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if norm.is_cuda or not norm <= longest:  # nan is passed on, and found in the loss
        nn.utils.clip_grads_with_norm_(parameters, longest, norm)


def distance(got: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """Norm of the difference over all parameters, relative to that of `expected`; infinite where only one has a gradient."""
    if any((a is None) != (b is None) for a, b in zip(got, expected, strict=True)):
        return float("inf")
    one, other = ([g for g in gradients if g is not None] for gradients in (got, expected))
    apart, norm = (nn.utils.get_total_norm(part) for part in (torch._foreach_sub(one, other), other))
    return float(apart / norm) if norm else float(apart)
