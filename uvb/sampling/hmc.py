"""Hamiltonian Monte Carlo, and its one-step case MALA: Langevin MCMC (Eq. 19) with a Metropolis test. Not in the paper."""

import math

import torch
from torch import Tensor

from uvb.models.base import Energy
from uvb.noise import normal
from uvb.sampling.chains import Info, WalkState
from uvb.sampling.metropolis import Point, here, metropolis_test, point, squares
from uvb.sampling.registry import register_sampler


def trajectory(
    energy: Energy, start: Point, velocity: Tensor, delta: float, leapfrogs: int, seed: int, batch: int | None
) -> tuple[Point, Tensor]:
    """Follow dy = v dt, dv = -∇f dt by `leapfrogs` leapfrog steps of length `delta`; returns where it ends, and v there."""
    now = start
    for _ in range(leapfrogs):
        half = velocity - 0.5 * delta * now.gradient
        now = point(energy, now.y + delta * half, seed, batch)
        velocity = half - 0.5 * delta * now.gradient
    return now, velocity


@register_sampler(
    "hmc", settings=lambda sigma: {"delta": 0.4 * sigma, "leapfrogs": 4}, gradients=lambda s: round(s["leapfrogs"]), exact=True
)
@torch.no_grad()
def hmc_step(
    energy: Energy, state: WalkState, seed: int, *, delta: float, leapfrogs: float, batch: int | None = None
) -> tuple[WalkState, Info]:
    """Draw a velocity, follow it for `leapfrogs` steps of length δ, and accept the end with probability min(1, exp(H - H')).

    H = f(y) + ‖v‖²/2. The energy's ε is the seed's one ε, and the draws are keyed by (seed, step).
    """
    old = here(energy, state, seed, batch)
    first = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    new, last = trajectory(energy, old, first, delta, round(leapfrogs), seed, batch)
    log_ratio = old.energy - new.energy + 0.5 * (squares(first) - squares(last))
    return metropolis_test(state, old, new, log_ratio, (last, first), seed, energy.sigma)


@register_sampler("mala", settings=lambda sigma: {"delta": 0.4 * sigma}, exact=True)
def mala_step(energy: Energy, state: WalkState, seed: int, *, delta: float, batch: int | None = None) -> tuple[WalkState, Info]:
    """One step of Eq. 19, y - δ²∇f(y) + √2 δ ε, as a proposal that a Metropolis test accepts or rejects.

    One leapfrog step of length √2 δ is this proposal, and its change of H is minus the logarithm of MALA's ratio.
    """
    return hmc_step(energy, state, seed, delta=math.sqrt(2) * delta, leapfrogs=1, batch=batch)
