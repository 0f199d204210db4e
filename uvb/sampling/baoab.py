"""Underdamped Langevin MCMC with the BAOAB splitting, from later work of the paper's author."""

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
    """One step of dy = v dt, dv = -∇f dt - γ v dt + √(2γ) dW with time step δ and unit mass. All tensors have the same shape.

    A BAOAB step is: half a kick (B), half a drift (A), refresh the velocity (O), half a drift (A), half a kick (B). The last
    kick of a step and the first kick of the next step use the same gradient. This function does both at once, so a step costs
    one gradient. Therefore `velocity` is the velocity v before the last kick of the previous step. After that kick it would be
    v - δ∇f(y)/2.

    On a quadratic energy y²/2s² the positions have exactly the right variance for any δ < 2s. On other energies the error is
    second order in δ.
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

    δ = σ/2 is stable, because the curvature of the energy of Y is at most 1/σ².
    """
    gradient = chain_gradient(energy, state, seed, batch)
    noise = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    y, velocity = baoab_update(state.y, state.velocity, gradient, noise, delta, friction)
    return advance(state, y, velocity, energy.sigma)
