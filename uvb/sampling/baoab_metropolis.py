"""BAOAB with a Metropolis test, so that the stationary density is exactly exp(-f). It is not in the paper."""

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

    The parts B and A preserve volume, and O preserves the normal density of the velocity. So the acceptance ratio is
    exp(-work), where work is the change of H = f(y) + ‖v‖²/2 over the parts B and A (the shadow work).

    Here `state.velocity` is the velocity after the last kick, because the test needs it. In `uvb.sampling.baoab` it is the
    velocity before the last kick.
    """
    old = current_point(energy, state, seed, batch)
    noise = normal(tuple(state.y.shape), seed, "walk", state.step, device=state.y.device).to(state.y)
    keep = math.exp(-friction * delta)
    kicked = state.velocity - 0.5 * delta * old.gradient  # B
    refreshed = keep * kicked + math.sqrt(1 - keep**2) * noise  # O; the next line does both parts A
    new = point(energy, state.y + 0.5 * delta * (kicked + refreshed), seed, batch)
    velocity = refreshed - 0.5 * delta * new.gradient  # B
    before = old.energy + 0.5 * (squares(state.velocity) - squares(kicked))
    after = new.energy + 0.5 * (squares(velocity) - squares(refreshed))
    return metropolis_test(state, old, new, before - after, (velocity, -state.velocity), seed, energy.sigma)
