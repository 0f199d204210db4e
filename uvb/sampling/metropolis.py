"""The Metropolis test. With it the stationary density of the chains is exactly exp(-f), at any step size."""

from typing import NamedTuple

import torch
from torch import Tensor

from uvb.models.base import Energy
from uvb.noise import generator
from uvb.sampling.chains import WalkState, advance, as_images, held_noise


class Point(NamedTuple):
    """Positions y (B, C, H, W) with f(y) (B,) and ∇f(y) (B, C, H, W)."""

    y: Tensor
    energy: Tensor
    gradient: Tensor


def point(energy: Energy, y: Tensor, seed: int, batch: int | None) -> Point:
    """Compute f and ∇f at y, for `batch` chains at once (None: all). ε is fixed for the whole walk (`held_noise`)."""
    eps, size = held_noise(energy, len(y), seed, y), batch or max(1, len(y))
    parts = [energy.value_and_gradient(part, e) for part, e in zip(y.split(size), eps.split(size), strict=True)]
    values, gradients = zip(*parts, strict=True)
    return Point(y, torch.cat(values), torch.cat(gradients))


def current_point(energy: Energy, state: WalkState, seed: int, batch: int | None) -> Point:
    """The chains' positions, with f and ∇f from `state`. They are computed here only at the first step of a walk."""
    if state.energy is None or state.gradient is None:
        return point(energy, state.y, seed, batch)
    return Point(state.y, state.energy, state.gradient)


def metropolis_test(
    state: WalkState, old: Point, new: Point, log_ratio: Tensor, velocity: tuple[Tensor, Tensor], seed: int, sigma: Tensor
) -> WalkState:
    """Accept each chain's proposal with probability min(1, exp(log_ratio)).

    Args:
        log_ratio: (B,), the log of the acceptance ratio. If it is nan, the proposal is rejected.
        velocity: the next velocities of the chains, twice: first for accepted proposals, then for rejected ones.
    """
    uniform = torch.rand(len(old.y), generator=generator(seed, "accept", state.step, device=old.y.device), device=old.y.device)
    taken = uniform.to(log_ratio).log() < log_ratio  # False for nan
    wide = as_images(taken, old.y)
    y = torch.where(wide, new.y, old.y)
    y = torch.where(as_images(old.energy.isfinite(), y), y, torch.nan)  # `advance` then stops a chain without a finite energy
    moved = advance(state, y, torch.where(wide, *velocity), sigma)
    return moved._replace(
        accepted=state.accepted + (taken & moved.alive),
        energy=torch.where(taken, new.energy, old.energy),
        gradient=torch.where(wide, new.gradient, old.gradient),
    )


def squares(images: Tensor) -> Tensor:
    """‖·‖² of each image: (B, C, H, W) -> (B,)."""
    return images.flatten(1).square().sum(1)
