"""Walk-jump sampling (Sec. 3.4): walk in Y by Langevin MCMC (Eq. 19), jump to X by the Bayes estimator (Eq. 20)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy, draw_latent_noise
from uvb.noise import generator
from uvb.sampling import get_sampler
from uvb.sampling.chains import Info, WalkState, held_noise


@dataclass(frozen=True)
class WalkJump:
    """How to walk and when to jump. The defaults are the paper's (Fig. 3). There is no warm-up and no restart.

    Attributes:
        delta: step size; δ of Eq. 19, whose time step is δ², for BAOAB the time step itself.
        steps_between_jumps: Langevin steps before each jump, the first included.
        jumps: how many jumps a walk has in all.
        second_jump: also jump from the jump, x̂(x̂(y)) (Sec. 3.3.1).
        sampler: a name of `uvb.sampling`: "langevin" (Eq. 19), "baoab" (underdamped), or an exact one such as "mala".
        settings: of the sampler besides δ, as BAOAB's friction γ per unit of time. A setting not given is as at σ = 1.
        batch: how many chains go through the net at once, which bounds memory (None: all).
    """

    delta: float = 0.2
    steps_between_jumps: int = 10
    jumps: int = 100
    second_jump: bool = False
    sampler: str = "langevin"
    settings: Mapping[str, float] = field(default_factory=dict)
    batch: int | None = 256

    def __post_init__(self) -> None:
        if self.steps_between_jumps < 1 or self.jumps < 1 or (self.batch is not None and self.batch < 1):
            raise UserError(
                f"steps_between_jumps = {self.steps_between_jumps}, jumps = {self.jumps}, batch = {self.batch}; "
                "each must be 1 or more"
            )
        usual = get_sampler(self.sampler).settings(1.0)
        for name, value in self.all_settings.items():
            if name not in usual:
                raise UserError(f"{self.sampler} has no setting {name!r}; it has: {', '.join(usual)}")
            if not 0 < value < math.inf:
                raise UserError(f"{name} = {value}: it must be finite and above 0; at σ = 1 it is usually {usual[name]:g}")

    @property
    def gradients_per_step(self) -> int:
        """How many gradients of the energy one step costs."""
        return get_sampler(self.sampler).gradients(self.all_settings)

    @property
    def all_settings(self) -> dict[str, float]:
        """What the sampler's step is called with, by name."""
        return {**get_sampler(self.sampler).settings(1.0), **self.settings, "delta": self.delta}


def walk_at(sigma: float, **changes: Any) -> WalkJump:
    """A walk with its sampler's own settings at σ, apart from `changes`. Without changes it is the paper's walk at σ = 1."""
    own = dict(get_sampler(changes.get("sampler", WalkJump.sampler)).settings(sigma))
    settings = {**own, **changes.pop("settings", {})}
    return WalkJump(**{"delta": settings.pop("delta"), "settings": settings, **changes})


class Jump(NamedTuple):
    """Where a jump lands, of all B chains. Chains that had diverged are included (see `alive`).

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
    """One step of the chosen sampler."""
    return get_sampler(config.sampler).step(energy, state, seed, batch=config.batch, **config.all_settings)


@torch.no_grad()
def jump(energy: Energy, state: WalkState, config: WalkJump, seed: int) -> Jump:
    """Jump from where the chains are (Eq. 20) and leave them there. ε is keyed by (seed, step), or an exact sampler's own."""
    noise = generator(seed, "jump", state.step, device=state.y.device)
    eps = draw_latent_noise(energy, len(state.y), noise, state.y)  # (B, noise_dim)
    again = draw_latent_noise(energy, len(state.y), noise, state.y)
    if get_sampler(config.sampler).exact:
        eps = again = held_noise(energy, len(state.y), seed, state.y)
    size = config.batch or max(1, len(state.y))
    x_hats, energies = [], []
    for y, first, second in zip(state.y.split(size), eps.split(size), again.split(size), strict=True):
        x_hat = energy(y, first)
        x_hats.append(energy(x_hat, second) if config.second_jump else x_hat)
        energies.append(energy.energy(y, first))
    return Jump(state.step, torch.cat(x_hats), torch.cat(energies), state.alive)


def walk_jump(energy: Energy, state: WalkState, config: WalkJump, seed: int) -> Iterator[tuple[WalkState, Jump]]:
    """Walk from `state` (see `uvb.sampling.chains.begin`) up to the last jump of `config`, and yield the state at each jump.

    A state from an earlier walk goes on where that walk stopped, and gives the same numbers as one long walk.
    A chain that diverges stops, and ``state.stopped_at`` has its step. The walk ends early only if every chain has diverged;
    its last jump then has no sound chain.
    """
    last = config.jumps * config.steps_between_jumps
    some = bool(state.alive.any())
    while state.step < last and some:
        state, _ = walk_step(energy, state, config, seed)
        if state.step % config.steps_between_jumps == 0:
            yield state, jump(energy, state, config, seed)
            some = bool(state.alive.any())  # only at jumps, because this waits for the GPU
