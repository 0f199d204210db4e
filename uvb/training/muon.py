"""Muon for weights of two or more axes: linear layers, and convolutions as (D, C k k) matrices.

Muon (Jordan et al., 2024) replaces the momentum of a matrix by roughly the nearest semi-orthogonal matrix, so that every
direction of a layer learns at the same speed. `torch.optim.Muon` takes only linear layers, and iterates on the whole matrix.
This optimizer iterates on the Gram matrix of the smaller side: for the paper's encoder 200 x 200 instead of 200 x 61,952.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's quintic polynomial moves singular values to about 0.7 to 1.2
STEPS = 5  # of the Newton-Schulz iteration
SMALLEST_NORM = 1e-7  # avoids a division by zero, so that a gradient of zero gives a step of zero
ADAMS_SIZE = 0.2  # the root mean square of Adam's step, divided by the learning rate (Liu et al., 2025)


class GramMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum. A weight with more than two axes is flattened to a matrix: first axis by all other axes.

    Steps are scaled to Adam's size, so both can use the same learning rate. They are computed in the weights' precision.

    Args:
        params: weights of two axes or more.
        lr: learning rate. The root mean square of a step is about 0.2 `lr`.
        momentum: the decay of the running average of the gradients.
        weight_decay: a step first multiplies the weights by 1 - `lr` `weight_decay`.

    Raises:
        ValueError: a weight has fewer than two axes.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        thin = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim < 2]
        if thin:
            raise ValueError(f"Muon takes weights of two axes or more, not one of shape {thin[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(average, momentum).flatten(1)  # Nesterov; (D, C k k)
        if weight_decay:
            weight.mul_(1 - lr * weight_decay)
        size = ADAMS_SIZE * math.sqrt(max(ahead.shape))
        weight.add_(orthogonalized(ahead).view_as(weight), alpha=-lr * size)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Approximate U V' of a matrix (m, n) = U S V', by the cheaper of `through_gram` and `iterated`."""
    small, large = min(matrix.shape), max(matrix.shape)  # with 5 steps both cost about the same at large = 1.5 small
    return through_gram(matrix) if 2 * large > 3 * small else iterated(matrix)


def iterated(matrix: Tensor) -> Tensor:
    """The Newton-Schulz iteration on the matrix itself: X <- (a + b X X' + c (X X')²) X, `STEPS` times."""
    a, b, c = COEFFICIENTS
    x = _wide(matrix)
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def through_gram(matrix: Tensor) -> Tensor:
    """Compute the result of `iterated` from the Gram matrix G = X X' of the smaller side.

    Every iterate is Q X, where Q is a polynomial of G. So the loop updates only two small matrices: Q, and the Gram matrix of
    Q X. Only two products contain the large matrix X. Half precision would fail here: rounding makes small eigenvalues of G
    negative, and the iteration amplifies them.
    """
    a, b, c = COEFFICIENTS
    x: Tensor = _wide(matrix)
    norm = x.norm().clamp(min=SMALLEST_NORM)
    gram = (x @ x.T) / norm.square()
    q = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for step in range(STEPS):
        p = torch.addmm(gram, gram, gram, beta=b, alpha=c)  # b G + c G²
        p.diagonal().add_(a)
        q = p @ q if step else p
        if step + 1 < STEPS:
            gram = p @ gram @ p
    x = (q / norm) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
