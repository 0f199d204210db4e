"""Underdamped Langevin MCMC by the BAOAB splitting. It is in the author's later work, not in the paper."""

import math

import torch
from torch import Tensor

from uvb.models.base import Energy
from uvb.noise import normal
from uvb.sampling.chains import WalkState, advance, chain_gradient
from uvb.sampling.registry import register_sampler


def baoab_update(
    y: Tensor, velocity: Tensor, gradient: Tensor, noise: Tensor, delta: float, friction: float
) -> tuple[Tensor, Tensor]:
    """One step of dy = v dt, dv = -∇f dt - γ v dt + √(2γ) dW with time step δ and unit mass; all tensors of one shape.

    BAOAB kicks by half a step, drifts by half, refreshes the velocity, drifts and kicks. The last kick of a step and the
    first of the next use the same gradient, so this function makes them one, and a step costs one gradient. `velocity` is
    therefore the velocity before the closing half-kick; after it the velocity is v - δ∇f(y)/2.
    On a quadratic energy the positions have exactly the right variance, for any δ below twice the energy's scale. On other
    energies the error is second order in δ.
    """
    kicked = velocity - delta * gradient  # B B
    keep = math.exp(-friction * delta)
    middle = y + 0.5 * delta * kicked  # A
    refreshed = keep * kicked + math.sqrt(1 - keep**2) * noise  # O
    return middle + 0.5 * delta * refreshed, refreshed  # A


@register_sampler("baoab", settings=lambda sigma: {"delta": 0.5 * sigma, "friction": 1 / sigma})
@torch.no_grad()
def baoab_step(
    energy: Energy, state: WalkState, seed: int, *, delta: float, friction: float, batch: int | None = None
) -> WalkState:
    """One step of every chain. ε and the noise are keyed by (seed, step).

    δ = σ/2 is stable, because the energy of Y curves by at most 1/σ².
    """
    gradient = chain_gradient(energy, state, seed, batch)
    noise = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    y, velocity = baoab_update(state.y, state.velocity, gradient, noise, delta, friction)
    return advance(state, y, velocity, energy.sigma)
