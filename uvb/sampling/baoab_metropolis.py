"""BAOAB with a Metropolis test, which makes the walk of `uvb.sampling.baoab` exact. Not in the paper."""

import math

import torch

from uvb.models.base import Energy
from uvb.noise import normal
from uvb.sampling.chains import WalkState
from uvb.sampling.metropolis import current_point, metropolis_test, point, squares
from uvb.sampling.registry import register_sampler


@register_sampler("baoab_metropolis", settings=lambda sigma: {"delta": 0.4 * sigma, "friction": 1 / sigma}, exact=True)
@torch.no_grad()
def baoab_metropolis_step(
    energy: Energy, state: WalkState, seed: int, *, delta: float, friction: float, batch: int | None = None
) -> WalkState:
    """One BAOAB step as a proposal. A rejected chain stays where it is and reverses its velocity.

    The steps B and A keep volume, and O keeps the velocity's normal density. So the acceptance ratio is exp(-work), where work
    is the change of H = f(y) + ‖v‖²/2 over the steps B and A alone (the shadow work). The test needs the velocity after the
    last kick. So `state.velocity` is that velocity here. In `uvb.sampling.baoab` it is the velocity before the last kick.
    """
    old = current_point(energy, state, seed, batch)
    noise = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    keep = math.exp(-friction * delta)
    kicked = state.velocity - 0.5 * delta * old.gradient  # B
    refreshed = keep * kicked + math.sqrt(1 - keep**2) * noise  # O, between the two halves of A
    new = point(energy, state.y + 0.5 * delta * (kicked + refreshed), seed, batch)
    velocity = refreshed - 0.5 * delta * new.gradient  # B
    before = old.energy + 0.5 * (squares(state.velocity) - squares(kicked))
    after = new.energy + 0.5 * (squares(velocity) - squares(refreshed))
    return metropolis_test(state, old, new, before - after, (velocity, -state.velocity), seed, energy.sigma)
