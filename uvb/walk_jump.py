"""Walk-jump sampling (Sec. 3.4): walk in Y by Langevin MCMC (Eq. 19), jump to X by the Bayes estimator (Eq. 20)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from uvb.baoab import baoab_step
from uvb.chains import Info, WalkState
from uvb.errors import UserError
from uvb.estimator import Energy, draw_latent_noise
from uvb.langevin import langevin_step
from uvb.noise import generator

Integrator = Literal["langevin", "baoab"]


@dataclass(frozen=True)
class WalkJump:
    """How to walk and when to jump. The defaults are the paper's (Fig. 3); there is no warm-up and no restart.

    Attributes:
        delta: δ of Eq. 19, whose time step is δ²; for BAOAB the time step itself.
        steps_between_jumps: Langevin steps before each jump, the first included.
        jumps: how many jumps a walk has in all.
        second_jump: also jump from the jump, x̂(x̂(y)) (Sec. 3.3.1).
        integrator: "langevin" (Eq. 19) or "baoab" (underdamped).
        friction: γ of BAOAB, per unit of time.
        batch: chains put through the net at once, which bounds memory (None: all).
    """

    delta: float = 0.2
    steps_between_jumps: int = 10
    jumps: int = 100
    second_jump: bool = False
    integrator: Integrator = "langevin"
    friction: float = 1.0
    batch: int | None = 256

    def __post_init__(self) -> None:
        if not 0 < self.delta < float("inf"):
            raise UserError(f"delta = {self.delta}: the step size must be a finite number above 0; the paper's is 0.2")
        if self.steps_between_jumps < 1 or self.jumps < 1 or (self.batch is not None and self.batch < 1):
            raise UserError(
                f"steps_between_jumps = {self.steps_between_jumps}, jumps = {self.jumps}, batch = {self.batch}; "
                "each must be 1 or more"
            )
        if self.integrator not in ("langevin", "baoab"):
            raise UserError(f"unknown integrator {self.integrator!r}; choose langevin or baoab")
        if not self.friction > 0:
            raise UserError(f"friction = {self.friction}: it must be above 0, e.g. 1.0")


def walk_at(sigma: float, **changes: Any) -> WalkJump:
    """The paper's walk at a noise level: δ = 0.2 σ, its 0.2 at its σ = 1; for BAOAB δ = σ/2 and friction 1/σ.

    The energy of Y curves by at most 1/σ², so Eq. 19 then takes the same steps in units of σ, and BAOAB is stable.
    """
    underdamped = changes.get("integrator") == "baoab"
    own = {"delta": 0.5 * sigma, "friction": 1 / sigma} if underdamped else {"delta": 0.2 * sigma}
    return WalkJump(**{**own, **changes})


class Jump(NamedTuple):
    """What a jump lands on; B chains, those that had diverged included (see `alive`).

    Attributes:
        step: Langevin steps taken before it.
        x_hat: (B, C, H, W), x̂(y), or x̂(x̂(y)) with `second_jump`.
        energy: (B,), f(y) at the position jumped from, in nats, up to the model's constant.
        alive: (B,) bool.
    """

    step: int
    x_hat: Tensor
    energy: Tensor
    alive: Tensor


def walk_step(energy: Energy, state: WalkState, config: WalkJump, seed: int) -> tuple[WalkState, Info]:
    """One step of the chosen integrator."""
    if config.integrator == "langevin":
        return langevin_step(energy, state, seed, delta=config.delta, batch=config.batch)
    return baoab_step(energy, state, seed, delta=config.delta, friction=config.friction, batch=config.batch)


@torch.no_grad()
def jump(energy: Energy, state: WalkState, config: WalkJump, seed: int) -> Jump:
    """Jump from where the chains are (Eq. 20), leaving them there; ε is keyed by (seed, step)."""
    noise = generator(seed, "jump", state.step, device=state.y.device)
    eps = draw_latent_noise(energy, len(state.y), noise, state.y)  # (B, noise_dim)
    again = draw_latent_noise(energy, len(state.y), noise, state.y)
    size = config.batch or max(1, len(state.y))
    x_hats, energies = [], []
    for y, first, second in zip(state.y.split(size), eps.split(size), again.split(size), strict=True):
        x_hat = energy(y, first)
        x_hats.append(energy(x_hat, second) if config.second_jump else x_hat)
        energies.append(energy.energy(y, first))
    return Jump(state.step, torch.cat(x_hats), torch.cat(energies), state.alive)


def walk_jump(energy: Energy, state: WalkState, config: WalkJump, seed: int) -> Iterator[tuple[WalkState, Jump]]:
    """Walk from `state` (see `uvb.chains.begin`) up to the last jump of `config`, yielding the state at each jump.

    A state taken from an earlier walk goes on where that one stopped, and gives the same numbers as one walk would have.
    A chain that diverges is stopped, with its step in ``state.stopped_at``; the walk ends early, with a last jump of no sound
    chain, only if all have.
    """
    last = config.jumps * config.steps_between_jumps
    some = bool(state.alive.any())
    while state.step < last and some:
        state, _ = walk_step(energy, state, config, seed)
        if state.step % config.steps_between_jumps == 0:
            yield state, jump(energy, state, config, seed)
            some = bool(state.alive.any())  # at jumps alone: a GPU has to be waited for
