"""NEBULA (Sec. 3.3.1): attractors of the energy's gradient flow, and the poor man's version of two steps of size σ²."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy


class FlowState(NamedTuple):
    """Gradient flow of B images.

    Attributes:
        y: (B, C, H, W), where the images are.
        gradient: (B, C, H, W), ∇f(y).
        energy: (B,), f(y), in nats.
        time: (B,), flow time dy/dt = -∇f(y) so far; one step of size σ² is σ².
        step_size: (B,), the next step.
        steps: (B,), steps accepted so far.
        converged: (B,) bool.
    """

    y: Tensor
    gradient: Tensor
    energy: Tensor
    time: Tensor
    step_size: Tensor
    steps: Tensor
    converged: Tensor


class Attractor(NamedTuple):
    """The end of a gradient flow, and the energies (iterations + 1, B) on the way."""

    state: FlowState
    energies: Tensor


@torch.no_grad()
def two_steps(energy: Energy, y: Tensor, eps: Tensor, eps_again: Tensor) -> tuple[Tensor, Tensor]:
    """x̂(y) and x̂(x̂(y)), Fig. 2c and 2d: two steps down the gradient of size σ². Each (B, C, H, W)."""
    x_hat = energy(y, eps)
    return x_hat, energy(x_hat, eps_again)


@torch.no_grad()
def gradient_flow(
    energy: Energy, y: Tensor, eps: Tensor, *, tolerance: float = 1e-4, accuracy: float = 0.5, max_steps: int = 5000
) -> Iterator[FlowState]:
    """Follow dy/dt = -∇f(y) from `y`, yielding the state at the start and after each trial step, until all converged.

    Euler's method with a step of its own for every image: a step of size s is taken if the gradient changed along it by
    at most `accuracy` of its norm (s times the curvature stays below `accuracy`, so a step cannot pass the minimum), and
    then grows by half, to σ² at most; else it is halved. An image has converged when σ² ∇f(y) = y - x̂(y) has a root mean
    square below `tolerance`, in units of pixels.

    Args:
        eps: (B, noise_dim), held fixed, so that f is a function of y alone.
        max_steps: trial steps after which to give up; see ``converged``.

    Raises:
        UserError: if tolerance or accuracy is not above 0, or accuracy is not below 1.
    """
    if not (tolerance > 0 and 0 < accuracy < 1):
        raise UserError(f"tolerance = {tolerance} must be above 0, and accuracy = {accuracy} between 0 and 1")
    largest = float(energy.sigma) ** 2
    gradient, zeros = energy.gradient(y, eps), y.new_zeros(len(y))
    state = FlowState(y, gradient, energy.energy(y, eps), zeros, zeros + 0.1 * largest, zeros.long(), zeros.bool())
    state = state._replace(converged=_rms(largest * gradient) < tolerance)
    yield state
    for _ in range(max_steps):
        moving = (~state.converged).nonzero().flatten()
        if len(moving) == 0:
            return
        state = _trial_step(energy, state, eps, moving, largest, tolerance, accuracy)
        yield state


def attractor(
    energy: Energy, y: Tensor, eps: Tensor, *, tolerance: float = 1e-4, accuracy: float = 0.5, max_steps: int = 5000
) -> Attractor:
    """The strict local minima that the gradient flow from `y` ends in; arguments as `gradient_flow`."""
    energies = []
    for state in gradient_flow(energy, y, eps, tolerance=tolerance, accuracy=accuracy, max_steps=max_steps):
        energies.append(state.energy)
    return Attractor(state, torch.stack(energies))


def _trial_step(
    energy: Energy, state: FlowState, eps: Tensor, moving: Tensor, largest: float, tolerance: float, accuracy: float
) -> FlowState:
    """Try one step of the images at the indices `moving`; the others rest."""
    old, step = state.gradient[moving], state.step_size[moving]
    y = state.y[moving] - step.reshape(-1, *[1] * (old.dim() - 1)) * old
    gradient = energy.gradient(y, eps[moving])
    taken = _rms(gradient - old) <= accuracy * _rms(old)  # False for nan, so a bad step is only halved
    at = moving[taken]
    step_size = torch.where(taken, (1.5 * step).clamp(max=largest), 0.5 * step)
    return FlowState(
        y=state.y.index_copy(0, at, y[taken]),
        gradient=state.gradient.index_copy(0, at, gradient[taken]),
        energy=state.energy.index_copy(0, at, energy.energy(y[taken], eps[at])),
        time=state.time.index_add(0, at, step[taken]),
        step_size=state.step_size.index_copy(0, moving, step_size),
        steps=state.steps.index_add(0, at, torch.ones_like(at)),
        converged=state.converged.index_fill(0, at[_rms(largest * gradient[taken]) < tolerance], True),
    )


def _rms(y: Tensor) -> Tensor:
    return y.flatten(1).square().mean(1).sqrt()
