"""Hamiltonian Monte Carlo, and MALA: Langevin MCMC (Eq. 19) with a Metropolis test. Neither is in the paper."""

import math

import torch

from uvb.models.base import Energy
from uvb.noise import normal
from uvb.sampling.chains import WalkState
from uvb.sampling.metropolis import current_point, metropolis_test, point, squares
from uvb.sampling.registry import register_sampler


@register_sampler(
    "hmc", settings=lambda sigma: {"delta": 0.4 * sigma, "leapfrogs": 4}, gradients=lambda s: round(s["leapfrogs"]), exact=True
)
@torch.no_grad()
def hmc_step(
    energy: Energy, state: WalkState, seed: int, *, delta: float, leapfrogs: float, batch: int | None = None
) -> WalkState:
    """Draw a velocity, and follow dy = v dt, dv = -∇f dt for `leapfrogs` leapfrog steps of size δ.

    The end point is accepted with probability min(1, exp(H - H')), where H is f(y) + ‖v‖²/2 at the start, and H' at the end.
    The energy's ε, `held_noise`, is the same for all chains and steps. The other random numbers are keyed by (seed, step).
    """
    old = current_point(energy, state, seed, batch)
    drawn = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    new, velocity = old, drawn
    for _ in range(round(leapfrogs)):
        half = velocity - 0.5 * delta * new.gradient
        new = point(energy, new.y + delta * half, seed, batch)
        velocity = half - 0.5 * delta * new.gradient
    log_ratio = old.energy - new.energy + 0.5 * (squares(drawn) - squares(velocity))
    return metropolis_test(state, old, new, log_ratio, (velocity, drawn), seed, energy.sigma)


@register_sampler("mala", settings=lambda sigma: {"delta": 0.4 * sigma}, exact=True)
def mala_step(energy: Energy, state: WalkState, seed: int, *, delta: float, batch: int | None = None) -> WalkState:
    """One step of Eq. 19, y - δ²∇f(y) + √2 δ ε, as a proposal that a Metropolis test accepts or rejects.

    This equals `hmc_step` with one leapfrog step of size √2 δ: the proposal and the acceptance ratio are the same.
    """
    return hmc_step(energy, state, seed, delta=math.sqrt(2) * delta, leapfrogs=1, batch=batch)
