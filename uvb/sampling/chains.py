"""Chains: the state a Markov chain is continued from, its beginning, and the end of one that diverges."""

from typing import NamedTuple

import torch
from torch import Tensor

from uvb.models.base import Energy, draw_latent_noise
from uvb.noise import generator, normal

LARGEST_RMS = 1000.0  # root mean square of a chain's pixels, in units of max(1, sigma), past which it has diverged
NEVER = -1  # in `stopped_at`: the chain has not diverged


class WalkState(NamedTuple):
    """All there is to B chains; every draw is keyed by (seed, step), so a saved state continues bit for bit.

    Attributes:
        y: (B, C, H, W), where the chains are. A stopped chain stays at its last sound position.
        velocity: (B, C, H, W), used by BAOAB alone (see `uvb.sampling.baoab`).
        step: Langevin steps taken so far.
        stopped_at: (B,) int64, the step at which a chain diverged, or -1.
    """

    y: Tensor
    velocity: Tensor
    step: int
    stopped_at: Tensor

    @property
    def alive(self) -> Tensor:
        """(B,) bool: the chains that have not diverged."""
        return self.stopped_at == NEVER


class Info(NamedTuple):
    """What one step tells: (B,) norms of ∇f at the position it left, and (B,) bool, the chains it stopped."""

    gradient_norm: Tensor
    stopped: Tensor


def initial_chains(n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """y₀ ~ Unif([0, 1]^d), the start of Sec. 3.4: (n, *shape), on the generator's device."""
    return torch.rand(n, *shape, generator=generator, device=generator.device)


def begin(
    n: int,
    shape: tuple[int, ...],
    seed: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> WalkState:
    """n chains at y₀ ~ Unif([0, 1]^d) with velocities ~ N(0, I), keyed by `seed`."""
    y = initial_chains(n, shape, generator(seed, "chains", device=device)).to(dtype)
    velocity = normal((n, *shape), seed, "velocity", device=device).to(dtype)
    return WalkState(y, velocity, 0, torch.full((n,), NEVER, device=device))


def chain_gradient(energy: Energy, state: WalkState, seed: int, batch: int | None = None) -> Tensor:
    """∇f(y) at the chains, (B, C, H, W), with ε keyed by (seed, step), `batch` chains at a time (None: all)."""
    latent = generator(seed, "latent", state.step, device=state.y.device)
    eps = draw_latent_noise(energy, len(state.y), latent, state.y)  # (B, noise_dim)
    size = batch or max(1, len(state.y))
    parts = zip(state.y.split(size), eps.split(size), strict=True)
    return torch.cat([energy.gradient(y, e) for y, e in parts])


def advance(state: WalkState, y: Tensor, velocity: Tensor, gradient: Tensor, sigma: Tensor) -> tuple[WalkState, Info]:
    """Move the sound chains to (y, velocity); stop, where they were, those not finite or past `LARGEST_RMS`."""
    step = state.step + 1
    rms = torch.maximum(_rms(y), _rms(velocity))
    sound = rms < LARGEST_RMS * sigma.clamp(min=1.0)  # False for nan too
    newly = state.alive & ~sound
    stopped_at = torch.where(newly, step, state.stopped_at)
    moves = (stopped_at == NEVER).reshape(-1, *[1] * (y.dim() - 1))
    moved = WalkState(torch.where(moves, y, state.y), torch.where(moves, velocity, state.velocity), step, stopped_at)
    return moved, Info(gradient.flatten(1).norm(dim=1), newly)


def _rms(y: Tensor) -> Tensor:
    return y.flatten(1).square().mean(1).sqrt()
