"""Compose an energy with a measurement v = A y + τ noise: sample Y from its posterior given v, and jump to X."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Energy
from uvb.sampling.chains import begin
from uvb.sampling.walk_jump import WalkJump, walk_jump

TASKS = ("inpaint", "deblur", "enlarge")
# At τ = σ/2 a trajectory is a quarter of the period of an unmeasured pixel (curvature 1/σ²), so draws are nearly independent.
LEAPFROGS = 7


@dataclass(frozen=True)
class Measurement:
    """A known linear map A of images, (B, C, H, W) -> (B, ...), with ‖A y‖ ≤ ‖y‖.

    `seen` is (C, H, W): 1 where a pixel is measured, 0 where it is missing.
    """

    task: str
    apply: Callable[[Tensor], Tensor]
    seen: Tensor


def measurement(task: str, shape: tuple[int, ...], like: Tensor) -> Measurement:
    """The measurement of a task: "inpaint" loses the right half, "deblur" takes 3x3 means, "enlarge" takes 2x2 means.

    Raises:
        UserError: the task is unknown, or the images to enlarge have odd sides.
    """
    channels, height, width = shape
    seen = torch.ones(shape).to(like)
    if task == "inpaint":
        seen[:, :, width // 2 :] = 0
        return Measurement(task, lambda y: y * seen, seen)
    if task == "deblur":
        kernel = torch.full((channels, 1, 3, 3), 1 / 9).to(like)
        return Measurement(task, lambda y: F.conv2d(y, kernel, padding=1, groups=channels), seen)
    if task == "enlarge":
        if height % 2 or width % 2:
            raise UserError(f"enlarge: sides must be even to be halved, not {height}x{width}; choose inpaint or deblur")
        return Measurement(task, lambda y: F.avg_pool2d(y, 2), seen)
    raise UserError(f"unknown task {task!r}; choose one of: {', '.join(TASKS)}")


class Conditioned(Energy):
    """f(y) + ‖v - A y‖² / 2τ², which is -log p(y | v) up to a constant.

    As an estimator it equals `prior`, because v depends on X only through y.

    Args:
        prior: the energy f.
        measured: A.
        observed: v, one for each image of the batch. So every call must pass the whole batch.
        tau: τ, above 0.

    Raises:
        UserError: tau is not above 0.
    """

    def __init__(self, prior: Energy, measured: Measurement, observed: Tensor, tau: float) -> None:
        super().__init__(float(prior.sigma))
        if not tau > 0:
            raise UserError(f"the measurement's noise is {tau}; it must be above 0")
        self.noise_dim, self.prior = prior.noise_dim, prior
        self.measured, self.observed, self.tau = measured, observed, tau

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        off = (self.observed - self.measured.apply(y)).flatten(1).square().sum(1) / (2 * self.tau**2)
        return self.prior.energy(y, eps) + off

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        x_hat: Tensor = self.prior(y, eps)
        return x_hat


class Restored(NamedTuple):
    """Posterior draws of N images, by `chains` chains each.

    Attributes:
        y: (T, N, chains, C, H, W), posterior draws of the noisy image.
        x_hat: (T, N, chains, C, H, W), the jumps from these draws. Their mean estimates X; their spread shows the error.
        acceptance: the share of proposals accepted.
        stopped: the number of chains that diverged.
    """

    y: Tensor
    x_hat: Tensor
    acceptance: float
    stopped: int


@torch.no_grad()
def restore(
    prior: Energy, measured: Measurement, observed: Tensor, tau: float, *, chains: int, draws: int, warm_up: int, seed: int
) -> Restored:
    """Sample the density exp(-f(y) - ‖v - A y‖²/2τ²) by Hamiltonian Monte Carlo.

    Chains begin at Unif[0, 1]^d, and jump after every trajectory.

    Args:
        observed: v, (N, ...), one measurement for each image.
        chains: how many chains each image gets.
        draws: how many draws of each chain to keep.
        warm_up: how many trajectories to discard before these draws.

    Raises:
        UserError: every chain diverged.
    """
    many = observed.repeat_interleave(chains, 0)
    energy = Conditioned(prior, measured, many, tau)
    shape = tuple(measured.seen.shape)
    state = begin(len(many), shape, seed, device=observed.device, dtype=observed.dtype)
    step = 0.5 * (float(energy.sigma) ** -2 + tau**-2) ** -0.5  # half of 1/√c; c = 1/σ² + 1/τ² is the largest curvature
    walk = WalkJump(delta=step, steps_between_jumps=1, jumps=warm_up + draws, sampler="hmc", settings={"leapfrogs": LEAPFROGS},
                    batch=None)  # fmt: skip
    kept: list[tuple[Tensor, Tensor]] = []
    for now, landed in walk_jump(energy, state, walk, seed):
        state = now
        if state.step > warm_up:
            kept.append((state.y, landed.x_hat))
    if not kept:
        raise UserError("every chain diverged, so there are no draws; choose another measurement, or another model")
    y, x_hat = (torch.stack(part).reshape(len(kept), len(observed), chains, *shape) for part in zip(*kept, strict=True))
    rate = float(state.accepted.double().mean()) / state.step
    return Restored(y, x_hat, rate, int((~state.alive).sum()))
