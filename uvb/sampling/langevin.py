"""Overdamped Langevin MCMC (Eq. 19)."""

import math

import torch
from torch import Tensor

from uvb.models.base import Energy
from uvb.noise import normal
from uvb.sampling.chains import WalkState, advance, chain_gradient
from uvb.sampling.registry import register_sampler


def langevin_update(y: Tensor, gradient: Tensor, noise: Tensor, delta: float) -> Tensor:
    """y - δ² ∇f(y) + √2 δ ε, Eq. 19. All tensors have one shape.

    On the energy y²/2s² its stationary variance is s² / (1 - δ²/2s²): an error of first order in the time step δ².
    """
    return y - delta**2 * gradient + math.sqrt(2) * delta * noise


@register_sampler("langevin", settings=lambda sigma: {"delta": 0.2 * sigma})
@torch.no_grad()
def langevin_step(energy: Energy, state: WalkState, seed: int, *, delta: float, batch: int | None = None) -> WalkState:
    """One step of every chain. ε and the noise are keyed by (seed, step). The velocities stay the same.

    δ is the paper's 0.2 (Fig. 3) in units of σ. The curvature of the energy of Y is at most 1/σ², so this step suits every σ.
    """
    gradient = chain_gradient(energy, state, seed, batch)
    noise = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    y = langevin_update(state.y, gradient, noise, delta)
    return advance(state, y, state.velocity, energy.sigma)
