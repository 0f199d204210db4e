"""The Metropolis test. It makes a walk exact: at any step size the stationary density of its chains is exp(-f)."""

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
    """f and ∇f at y, with the ε of `held_noise`. `batch` chains go through the network at once (None: all)."""
    eps, size = held_noise(energy, len(y), seed, y), batch or max(1, len(y))
    parts = [energy.value_and_gradient(part, e) for part, e in zip(y.split(size), eps.split(size), strict=True)]
    values, gradients = zip(*parts, strict=True)
    return Point(y, torch.cat(values), torch.cat(gradients))


def current_point(energy: Energy, state: WalkState, seed: int, batch: int | None) -> Point:
    """The chains' positions, with f and ∇f from `state`. Only the first step of a walk has to compute them."""
    if state.energy is None or state.gradient is None:
        return point(energy, state.y, seed, batch)
    return Point(state.y, state.energy, state.gradient)


def metropolis_test(
    state: WalkState, old: Point, new: Point, log_ratio: Tensor, velocity: tuple[Tensor, Tensor], seed: int, sigma: Tensor
) -> WalkState:
    """Accept each chain's proposal with probability min(1, exp(log_ratio)).

    Args:
        log_ratio: (B,). A proposal whose ratio is nan is rejected.
        velocity: the new velocities if the proposal is accepted, and if it is rejected.
    """
    uniform = torch.rand(len(old.y), generator=generator(seed, "accept", state.step, device=old.y.device), device=old.y.device)
    taken = uniform.to(log_ratio).log() < log_ratio  # False for nan
    wide = as_images(taken, old.y)
    y = torch.where(wide, new.y, old.y)
    y = torch.where(as_images(old.energy.isfinite(), y), y, torch.nan)  # without a finite energy a chain has diverged
    moved = advance(state, y, torch.where(wide, *velocity), sigma)
    return moved._replace(
        accepted=state.accepted + (taken & moved.alive),
        energy=torch.where(taken, new.energy, old.energy),
        gradient=torch.where(wide, new.gradient, old.gradient),
    )


def squares(images: Tensor) -> Tensor:
    """‖·‖² of each image: (B, C, H, W) -> (B,)."""
    return images.flatten(1).square().sum(1)
