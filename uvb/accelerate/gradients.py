"""A step's gradients: how to clip them, and how far apart two of them are."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Gradients = Callable[..., Tensor]  # (x, noise, eps, weight) -> loss, the parameters' gradients left in .grad


def clip(parameters: Sequence[Tensor], longest: float) -> None:
    """Scale the gradients of one model, in place, so that their total norm is at most `longest`.

    On a CPU gradients below `longest` are not multiplied, which saves a pass over all weights. On a GPU all are multiplied,
    because the host would have to wait for the norm.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if norm.is_cuda or not norm <= longest:  # nan is clipped, too, and noticed later in the loss
        nn.utils.clip_grads_with_norm_(parameters, longest, norm)


def distance(got: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """The norm of the difference divided by the norm of `expected`. Infinite if a gradient is None in only one of them."""
    if any((a is None) != (b is None) for a, b in zip(got, expected, strict=True)):
        return float("inf")
    one, other = ([g for g in gradients if g is not None] for gradients in (got, expected))
    apart, norm = (nn.utils.get_total_norm(part) for part in (torch._foreach_sub(one, other), other))
    return float(apart / norm) if norm else float(apart)
