"""Walk-jump sampling (Sec. 3.4): walk in Y by Langevin MCMC (Eq. 19), and jump to X by the Bayes estimator (Eq. 20)."""

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
from uvb.sampling.chains import WalkState, held_noise


@dataclass(frozen=True)
class WalkJump:
    """How to walk and when to jump. The defaults are the paper's (Fig. 3). There is no warm-up and no restart.

    Attributes:
        delta: step size. In Eq. 19 the time step is δ²; in BAOAB it is δ.
        steps_between_jumps: number of steps before each jump, also before the first.
        jumps: number of jumps of a walk.
        second_jump: jump twice, to x̂(x̂(y)) (Sec. 3.3.1).
        sampler: the name of a sampler: "langevin" (Eq. 19), "baoab" (underdamped), or one with a Metropolis test, e.g. "mala".
        settings: the sampler's settings besides δ, such as BAOAB's friction γ. A setting that is not given has its usual value
            at σ = 1.
        batch: how many chains go through the network at once, to bound memory (None: all).
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
        """All settings of the sampler by name, with `delta`."""
        return {**get_sampler(self.sampler).settings(1.0), **self.settings, "delta": self.delta}


def walk_at(sigma: float, **changes: Any) -> WalkJump:
    """A walk with the sampler's usual settings at σ. `changes` replace fields. `walk_at(1.0)` is the paper's walk."""
    usual = get_sampler(changes.get("sampler", WalkJump.sampler)).settings(sigma)
    settings = {**usual, **changes.pop("settings", {})}
    delta = settings.pop("delta")
    return WalkJump(**{"delta": delta, "settings": settings, **changes})


class Jump(NamedTuple):
    """One jump of all B chains.

    Attributes:
        step: steps taken before the jump.
        x_hat: (B, C, H, W), x̂(y), or x̂(x̂(y)) with `second_jump`.
        energy: (B,), f(y) before the jump, in nats, up to the model's constant.
        alive: (B,) bool, the chains that have not diverged.
    """

    step: int
    x_hat: Tensor
    energy: Tensor
    alive: Tensor


def walk_step(energy: Energy, state: WalkState, config: WalkJump, seed: int) -> WalkState:
    """One step of the chosen sampler."""
    return get_sampler(config.sampler).step(energy, state, seed, batch=config.batch, **config.all_settings)


@torch.no_grad()
def jump(energy: Energy, state: WalkState, config: WalkJump, seed: int) -> Jump:
    """Jump from the chains' positions (Eq. 20). The chains themselves do not move.

    ε is keyed by (seed, step). For a sampler with a Metropolis test it is the one ε of the whole walk.
    """
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
    """Walk from `state` to the last jump of `config`. At each jump, yield the state and the `Jump`.

    `uvb.sampling.chains.begin` makes a first state. A walk that continues from the state of an earlier walk gives the same
    numbers as one long walk. A chain that diverges stops, and ``state.stopped_at`` has the step. The walk ends early, after a
    jump, if all chains have diverged.
    """
    last = config.jumps * config.steps_between_jumps
    any_alive = bool(state.alive.any())
    while state.step < last and any_alive:
        state = walk_step(energy, state, config, seed)
        if state.step % config.steps_between_jumps == 0:
            yield state, jump(energy, state, config, seed)
            any_alive = bool(state.alive.any())  # checked only at jumps, because reading it waits for the GPU
