"""An energy composed with a measurement: posterior sampling of Y given v = A y + τ noise, and jumps from there."""

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
LEAPFROGS = 7  # a quarter turn of directions as wide as σ, where τ = σ/2: the next draw is then nearly independent


@dataclass(frozen=True)
class Measurement:
    """A known linear map A of images, (B, C, H, W) -> (B, ...), that makes no image longer: ‖A y‖ ≤ ‖y‖.

    `seen` is (C, H, W), 1 where a pixel is measured at all; a picture of what is missing.
    """

    task: str
    apply: Callable[[Tensor], Tensor]
    seen: Tensor


def measurement(task: str, shape: tuple[int, ...], like: Tensor) -> Measurement:
    """Inpaint: the right half is missing. Deblur: 3x3 means. Enlarge: means of squares of 2x2 pixels.

    Raises:
        UserError: for another task, or to enlarge images whose sides are odd.
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
    """f(y) + ‖v - A y‖² / 2τ²: -log p(y | v) up to a constant. It jumps as its prior does, since v tells of X through y alone.

    Args:
        prior: the energy f.
        observed: v, one an image of the batch; so the batch must always be whole.
        tau: τ, above 0.
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
        y: (T, N, chains, C, H, W), draws of the noisy image.
        x_hat: the same shape, jumps from there. Their mean estimates X; their spread tells where v leaves it open.
        acceptance: the share of proposals accepted.
        stopped: chains that diverged, of all.
    """

    y: Tensor
    x_hat: Tensor
    acceptance: float
    stopped: int


def posterior_walk(energy: Energy, tau: float, draws: int) -> WalkJump:
    """Hamiltonian Monte Carlo with steps as long as a curvature of 1/σ² + 1/τ² allows, and a jump after each trajectory."""
    scale = (float(energy.sigma) ** -2 + tau**-2) ** -0.5
    return WalkJump(delta=0.5 * scale, steps_between_jumps=1, jumps=draws, sampler="hmc", settings={"leapfrogs": LEAPFROGS},
                    batch=None)  # fmt: skip


@torch.no_grad()
def restore(
    prior: Energy, measured: Measurement, observed: Tensor, tau: float, *, chains: int, draws: int, warm_up: int, seed: int
) -> Restored:
    """Walk on f(y) + ‖v - A y‖²/2τ² from Unif[0, 1]^d, with a Metropolis test, and jump at every trajectory.

    Args:
        observed: v, (N, ...), one measurement an image.
        draws: how many draws of each chain to keep, after `warm_up` trajectories.
    """
    many = observed.repeat_interleave(chains, 0)
    energy = Conditioned(prior, measured, many, tau)
    shape = tuple(measured.seen.shape)
    state = begin(len(many), shape, seed, device=observed.device, dtype=observed.dtype)
    kept: list[tuple[Tensor, Tensor]] = []
    for now, landed in walk_jump(energy, state, posterior_walk(prior, tau, warm_up + draws), seed):
        state = now
        if state.step > warm_up:
            kept.append((state.y, landed.x_hat))
    if not kept:
        raise UserError("every chain diverged; the energy cannot be walked with this measurement")
    y, x_hat = (torch.stack(part).reshape(len(kept), len(observed), chains, *shape) for part in zip(*kept, strict=True))
    rate = float(state.accepted.double().mean()) / state.step
    return Restored(y, x_hat, rate, int((~state.alive).sum()))
