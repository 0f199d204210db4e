"""Overdamped Langevin MCMC (Eq. 19)."""

import math

import torch
from torch import Tensor

from uvb.models.base import Energy
from uvb.noise import normal
from uvb.sampling.chains import WalkState, advance, chain_gradient
from uvb.sampling.registry import register_sampler


def langevin_update(y: Tensor, gradient: Tensor, noise: Tensor, delta: float) -> Tensor:
    """y - δ² ∇f(y) + √2 δ ε, Eq. 19. All tensors have the same shape.

    On the energy y²/2s² the stationary variance is s² / (1 - δ²/2s²) instead of s²: a first-order error in the time step δ².
    """
    return y - delta**2 * gradient + math.sqrt(2) * delta * noise


@register_sampler("langevin", settings=lambda sigma: {"delta": 0.2 * sigma})
@torch.no_grad()
def langevin_step(energy: Energy, state: WalkState, seed: int, *, delta: float, batch: int | None = None) -> WalkState:
    """One step of every chain. The energy's draws and the noise of Eq. 19 are keyed by (seed, step). Velocities are not used.

    The usual δ is 0.2 σ, as in Fig. 3 with σ = 1. It suits every σ, because the curvature of the energy of Y is at most 1/σ².
    """
    gradient = chain_gradient(energy, state, seed, batch)
    noise = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    y = langevin_update(state.y, gradient, noise, delta)
    return advance(state, y, state.velocity, energy.sigma)
