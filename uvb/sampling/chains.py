"""Markov chains: their state, how they begin, and how a diverging chain is stopped."""

from typing import NamedTuple

import torch
from torch import Tensor

from uvb.models.base import Energy, draw_latent_noise
from uvb.noise import generator, normal

LARGEST_RMS = 1000.0  # a chain has diverged if the root mean square of y or of its velocity exceeds this times max(1, σ)
NEVER = -1  # the value of `stopped_at` for a chain that has not diverged


class WalkState(NamedTuple):
    """The whole state of B chains. All random numbers are keyed by (seed, step), so a saved state resumes bit for bit.

    Attributes:
        y: (B, C, H, W), where the chains are. A chain that diverged stays at its last valid position.
        velocity: (B, C, H, W), used only by the underdamped samplers (see `uvb.sampling.baoab`).
        step: steps taken so far.
        stopped_at: (B,) int64, the step at which a chain diverged, or -1.
        accepted: (B,) int64, proposals accepted so far. 0 for a sampler without a Metropolis test.
        energy: (B,), f(y). Samplers with a Metropolis test keep it for the next step. None: not computed yet.
        gradient: (B, C, H, W), ∇f(y), kept for the same reason.
    """

    y: Tensor
    velocity: Tensor
    step: int
    stopped_at: Tensor
    accepted: Tensor
    energy: Tensor | None = None
    gradient: Tensor | None = None

    @property
    def alive(self) -> Tensor:
        """(B,) bool: the chains that have not diverged."""
        return self.stopped_at == NEVER


def begin(
    n: int,
    shape: tuple[int, ...],
    seed: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> WalkState:
    """Begin n chains at y₀ ~ Unif([0, 1]^d), as in Sec. 3.4, with velocities ~ N(0, I), keyed by `seed`."""
    y = torch.rand(n, *shape, generator=generator(seed, "chains", device=device), device=device)
    return begin_at(y.to(dtype), seed)


def begin_at(y: Tensor, seed: int) -> WalkState:
    """Begin chains at positions `y`, (B, C, H, W), with velocities ~ N(0, I), keyed by `seed`."""
    velocity = normal(tuple(y.shape), seed, "velocity", device=y.device).to(y)
    never = torch.full((len(y),), NEVER, device=y.device)
    return WalkState(y, velocity, 0, never, torch.zeros_like(never))


def chain_gradient(energy: Energy, state: WalkState, seed: int, batch: int | None = None) -> Tensor:
    """∇f(y) at the chains' positions, (B, C, H, W). ε is keyed by (seed, step).

    Args:
        batch: how many chains go through the network at once. None: all.
    """
    latent = generator(seed, "latent", state.step, device=state.y.device)
    eps = draw_latent_noise(energy, len(state.y), latent, state.y)  # (B, noise_dim)
    size = batch or max(1, len(state.y))
    parts = zip(state.y.split(size), eps.split(size), strict=True)
    return torch.cat([energy.gradient(y, e) for y, e in parts])


def held_noise(energy: Energy, n: int, seed: int, like: Tensor) -> Tensor:
    """One ε ~ N(0, I) for all n chains and all steps, repeated to (n, noise_dim). It depends only on the seed.

    With a fixed ε a random energy such as UVB's is a function of y alone, and exp(-f) is a density.
    """
    return normal((1, energy.noise_dim), seed, "held latent", device=like.device).to(like).expand(n, -1)


def advance(state: WalkState, y: Tensor, velocity: Tensor, sigma: Tensor) -> WalkState:
    """Move chains to (y, velocity). A chain whose new values are not finite or exceed `LARGEST_RMS` stops where it was."""
    step = state.step + 1
    rms = torch.maximum(rms_of(y), rms_of(velocity))
    sound = rms < LARGEST_RMS * sigma.clamp(min=1.0)  # False for nan too
    stopped_at = torch.where(state.alive & ~sound, step, state.stopped_at)
    moves = as_images(stopped_at == NEVER, y)
    y, velocity = torch.where(moves, y, state.y), torch.where(moves, velocity, state.velocity)
    return WalkState(y, velocity, step, stopped_at, state.accepted)


def as_images(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1), to broadcast against images `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def rms_of(y: Tensor) -> Tensor:
    """The root mean square of each image's pixels: (B, C, H, W) -> (B,)."""
    return y.flatten(1).square().mean(1).sqrt()
