"""What follows the backward pass, as one function that a compiler can make one pass over the weights: clip, Adam, EMA.

The training loop calls torch's own three (`clip`, ``Adam(fused=True)``, ``_foreach_lerp_``), which go over
the weights 13 times (a norm 1, clipping 2, Adam 7, EMA 3); in one pass it is 10. Whether that pays on a GPU is a row of
`gpu/run.py`; nothing else uses this.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 0.999


class OneUpdate:
    """Clip at `longest`, Adam (Kingma & Ba, 2015), and the average of the weights, of all of `trained` at once.

    Args:
        trained: parameters, changed in place by each call; a call finds their gradients in ``.grad`` and leaves them.
        averaged: their EMA, changed in place.
        through: what the update is wrapped in, `torch.compile` by default.
    """

    def __init__(
        self,
        trained: Sequence[nn.Parameter],
        averaged: Sequence[Tensor],
        rate: float,
        longest: float = math.inf,
        through: Callable[..., Any] = torch.compile,
    ) -> None:
        self.trained, self.averaged, self.rate, self.longest = list(trained), list(averaged), rate, longest
        self.first, self.second = ([torch.zeros_like(p) for p in trained] for _ in range(2))
        # on the device, so that neither the compiler nor a CUDA graph takes them for constants
        self.powers = torch.ones(2, dtype=torch.float64, device=self.trained[0].device)  # β₁ᵗ, β₂ᵗ
        self.betas = torch.tensor(BETAS, dtype=torch.float64, device=self.powers.device)
        self.update = through(self._update)

    def __call__(self) -> None:
        with torch.no_grad():
            self.powers *= self.betas
            self.update(self.trained, [p.grad for p in self.trained], self.first, self.second, self.averaged, self.powers)

    def _update(
        self,
        trained: list[Tensor],
        gradients: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
        averaged: list[Tensor],
        powers: Tensor,
    ) -> None:
        norm = nn.utils.get_total_norm(gradients)
        scale = (self.longest / (norm + 1e-6)).clamp(max=1.0)
        corrected = (1 - powers).to(norm.dtype)
        for p, g, m, v, a in zip(trained, gradients, first, second, averaged, strict=True):
            short = g * scale
            m.lerp_(short, 1 - BETAS[0])
            v.lerp_(short * short, 1 - BETAS[1])
            p.sub_(self.rate * (m / corrected[0]) / ((v / corrected[1]).sqrt() + EPS))
            a.lerp_(p, 1 - DECAY)
