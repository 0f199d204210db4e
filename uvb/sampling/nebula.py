"""NEBULA (Sec. 3.3.1): follow the gradient flow of an energy to its attractors."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy
from uvb.sampling.chains import as_images, rms_of


class FlowState(NamedTuple):
    """The state of a gradient flow of B images.

    Attributes:
        y: (B, C, H, W), where the images are.
        gradient: (B, C, H, W), ∇f(y).
        energy: (B,), f(y), in nats.
        time: (B,), the flow's time so far: the sum of the accepted step sizes.
        step_size: (B,), the size of the next step.
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


@torch.no_grad()
def gradient_flow(
    energy: Energy, y: Tensor, eps: Tensor, *, tolerance: float = 1e-4, accuracy: float = 0.5, max_steps: int = 5000
) -> Iterator[FlowState]:
    """Follow dy/dt = -∇f(y) from `y`. Yield the state at the start and after each trial step, until all images converged.

    This is Euler's method with an adaptive step size s for each image. A trial step is accepted if it changes the gradient by
    at most `accuracy` times the gradient's norm. Then s times the curvature is below `accuracy`, so the step cannot pass the
    minimum. After an accepted step s grows by half, up to σ². After a rejected step s is halved. An image has converged when
    the root mean square of σ² ∇f(y) = y - x̂(y) is below `tolerance`, in units of pixels.

    Args:
        eps: (B, noise_dim), fixed for the whole flow, so that f is a function of y alone.
        max_steps: the largest number of trial steps. For images that need more, ``converged`` stays False.

    Raises:
        UserError: tolerance is not above 0, or accuracy is not between 0 and 1.
    """
    if not (tolerance > 0 and 0 < accuracy < 1):
        raise UserError(f"tolerance = {tolerance} must be above 0, and accuracy = {accuracy} between 0 and 1")
    largest = float(energy.sigma) ** 2
    gradient, zeros = energy.gradient(y, eps), y.new_zeros(len(y))
    state = FlowState(y, gradient, energy.energy(y, eps), zeros, zeros + 0.1 * largest, zeros.long(), zeros.bool())
    state = state._replace(converged=rms_of(largest * gradient) < tolerance)
    yield state
    for _ in range(max_steps):
        moving = (~state.converged).nonzero().flatten()
        if len(moving) == 0:
            return
        state = _trial_step(energy, state, eps, moving, largest, tolerance, accuracy)
        yield state


def _trial_step(
    energy: Energy, state: FlowState, eps: Tensor, moving: Tensor, largest: float, tolerance: float, accuracy: float
) -> FlowState:
    """Try one step for the images at the indices `moving`. The other images stay where they are."""
    old, step = state.gradient[moving], state.step_size[moving]
    y = state.y[moving] - as_images(step, old) * old
    gradient = energy.gradient(y, eps[moving])
    taken = rms_of(gradient - old) <= accuracy * rms_of(old)  # False for nan, so a bad step is halved
    at = moving[taken]
    step_size = torch.where(taken, (1.5 * step).clamp(max=largest), 0.5 * step)
    return FlowState(
        y=state.y.index_copy(0, at, y[taken]),
        gradient=state.gradient.index_copy(0, at, gradient[taken]),
        energy=state.energy.index_copy(0, at, energy.energy(y[taken], eps[at])),
        time=state.time.index_add(0, at, step[taken]),
        step_size=state.step_size.index_copy(0, moving, step_size),
        steps=state.steps.index_add(0, at, torch.ones_like(at)),
        converged=state.converged.index_fill(0, at[rms_of(largest * gradient[taken]) < tolerance], True),
    )
