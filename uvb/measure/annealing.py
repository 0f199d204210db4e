"""Estimate log Z = log ∫ exp(-f(y)) dy of an energy f by annealed importance sampling (Neal 2001), with two bounds.

The lower and the upper bound come from annealing in both directions (Grosse et al. 2015).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from uvb.measure.gaussian_fit import GaussianFit
from uvb.models.base import Energy
from uvb.noise import generator, normal
from uvb.sampling.chains import as_images
from uvb.sampling.metropolis import point, squares
from uvb.words import counted

RESAMPLES = 400  # samples of the bootstrap over chains
TOLERANCE = 0.5  # nats; the bounds meet if they differ by at most this, or by at most three standard errors


@dataclass(frozen=True)
class Annealing:
    """How to anneal. At each temperature except the last a chain takes one trajectory with a Metropolis test.

    Attributes:
        chains: chains in each direction.
        temperatures: number of densities that each chain passes through.
        leapfrogs: leapfrog steps of a trajectory.
        step: size of a leapfrog step, in units of σ.
        batch: how many chains go through the network at once.
    """

    chains: int = 64
    temperatures: int = 50
    leapfrogs: int = 3
    step: float = 0.45
    batch: int = 256

    @property
    def gradients(self) -> int:
        """How many gradients of the energy one chain needs in one direction."""
        return 1 + (self.temperatures - 1) * self.leapfrogs


class Normalizer(NamedTuple):
    """log Z and its bounds, in nats.

    Attributes:
        log_z: Bennett's estimate from the weights of both directions.
        stderr: the standard error of log_z, by a bootstrap over chains.
        lower: the forward estimate. Its expectation is at most log Z.
        upper: the reverse estimate. Its expectation is at least log Z if the reverse chains begin as draws of exp(-f).
        acceptance: the share of proposals accepted, at the temperature where it is lowest.
        message: why there is no estimate, or "".
    """

    log_z: float
    stderr: float
    lower: float
    lower_stderr: float
    upper: float
    upper_stderr: float
    acceptance: float
    message: str


class _Place(NamedTuple):
    """Positions y, with value and gradient at y of both energies: the base f₀ and the energy f."""

    y: Tensor
    base: tuple[Tensor, Tensor]
    energy: tuple[Tensor, Tensor]

    def mixed(self, beta: float) -> tuple[Tensor, Tensor]:
        """(1 - β) f₀ + β f and its gradient."""
        (base, base_gradient), (energy, energy_gradient) = self.base, self.energy
        return torch.lerp(base, energy, beta), torch.lerp(base_gradient, energy_gradient, beta)

    def where(self, taken: Tensor, other: "_Place") -> "_Place":
        """Choose for each chain: `self` where `taken`, (B,) bool, is true, and `other` elsewhere."""
        wide = as_images(taken, self.y)

        def chosen(new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return torch.where(taken, new[0], old[0]), torch.where(wide, new[1], old[1])

        return _Place(torch.where(wide, self.y, other.y), chosen(self.base, other.base), chosen(self.energy, other.energy))


class Annealer:
    """Move chains between a normalized base density exp(-f₀) and the density exp(-f).

    Args:
        base: f₀, a normalized energy.
        energy: f. Its ε is held fixed (`uvb.sampling.chains.held_noise`), so f is a function of y alone.
        seed: keys all random numbers.
    """

    def __init__(self, base: Energy, energy: Energy, config: Annealing, seed: int) -> None:
        self.base, self.energy, self.config, self.seed = base, energy, config, seed

    @torch.no_grad()
    def walk(self, y: Tensor, trajectories: int) -> Tensor:
        """Walk `trajectories` HMC trajectories in exp(-f) from y (B, C, H, W). Return the last positions."""
        place = self._at(y)
        for k in range(trajectories):
            place, _ = self._trajectory(place, 1.0, "walk", k)
        return place.y

    @torch.no_grad()
    def anneal(self, y: Tensor, *, forward: bool) -> tuple[Tensor, float]:
        """Move chains from the base density to exp(-f) if `forward`, and otherwise from exp(-f) to the base density.

        Args:
            y: (B, C, H, W), where the chains start: draws of the base density if `forward`, and otherwise of exp(-f).

        Returns:
            Log weights (B,), each an estimate of log Z, and the lowest share of proposals accepted at any temperature.
        """
        betas = torch.linspace(0, 1, self.config.temperatures + 1, dtype=torch.float64).tolist()
        path = betas if forward else betas[::-1]
        name = "forward" if forward else "reverse"
        place, weights, least = self._at(y), torch.zeros(len(y), dtype=torch.float64, device=y.device), 1.0
        for k, (beta, following) in enumerate(zip(path[:-1], path[1:], strict=True)):
            weights += abs(following - beta) * (place.base[0].double() - place.energy[0].double())
            if k + 1 < self.config.temperatures:  # a move at the last temperature would not change the weights
                place, accepted = self._trajectory(place, following, name, k)
                least = min(least, accepted)
        return weights, least

    def _at(self, y: Tensor) -> _Place:
        _, value, gradient = point(self.energy, y, self.seed, self.config.batch)
        return _Place(y, self.base.value_and_gradient(y, y.new_empty(len(y), 0)), (value, gradient))

    def _trajectory(self, start: _Place, beta: float, *purpose: str | int) -> tuple[_Place, float]:
        """Walk one HMC trajectory in exp(-(1 - β) f₀ - β f). Return where the chains are, and the share accepted."""
        delta, y = self.config.step * float(self.energy.sigma), start.y
        velocity = normal(tuple(y.shape), self.seed, "anneal", *purpose, device=y.device).to(y)
        kinetic, now = 0.5 * squares(velocity), start
        for _ in range(self.config.leapfrogs):
            half = velocity - 0.5 * delta * now.mixed(beta)[1]
            now = self._at(now.y + delta * half)
            velocity = half - 0.5 * delta * now.mixed(beta)[1]
        ratio = start.mixed(beta)[0] - now.mixed(beta)[0] + kinetic - 0.5 * squares(velocity)
        g = generator(self.seed, "anneal accept", *purpose, device=y.device)
        taken = torch.rand(len(y), generator=g, device=y.device).to(ratio).log() < ratio  # False for nan
        return now.where(taken, start), float(taken.double().mean())


def normalizer(base: GaussianFit, energy: Energy, start: Tensor, config: Annealing, seed: int) -> Normalizer:
    """Estimate log Z = log ∫ exp(-f(y)) dy.

    Args:
        base: a Gaussian. Its log Z is 0.
        start: (B, C, H, W), where the reverse chains begin. `upper` is a bound only if these are draws of exp(-f).
    """
    annealer = Annealer(base, energy, config, seed)
    y = base.sample(config.chains, generator(seed, "anneal base", device=start.device))
    forward, accepted = annealer.anneal(y, forward=True)
    reverse, accepted_back = annealer.anneal(start, forward=False)
    return combined(forward.cpu(), reverse.cpu(), min(accepted, accepted_back))


def combined(forward: Tensor, reverse: Tensor, acceptance: float = 1.0) -> Normalizer:
    """Compute log Z and its bounds from the log weights of forward chains (n,) and of reverse chains (m,)."""
    nothing = (math.nan,) * 6
    if acceptance == 0:
        return Normalizer(*nothing, acceptance, "no proposal was accepted at one temperature: take a smaller step")
    if not bool(forward.isfinite().all() and reverse.isfinite().all()):
        lost = int((~forward.isfinite()).sum() + (~reverse.isfinite()).sum())
        diverged = f"{counted(lost, 'annealed chain')} diverged"
        return Normalizer(*nothing, acceptance, f"{diverged}: log Z of this energy may be infinite")
    g = generator(0, "bootstrap")
    samples = [w[torch.randint(len(w), (RESAMPLES, len(w)), generator=g)] for w in (forward, reverse)]
    lower_stderr, upper_stderr, stderr = torch.stack(_estimates(*samples)).std(1).tolist()
    lower, upper, log_z = torch.cat(_estimates(forward[None], reverse[None])).tolist()
    meet = abs(upper - lower) <= max(TOLERANCE, 3 * math.hypot(lower_stderr, upper_stderr))
    apart = f"the bounds of log Z, {lower:.1f} and {upper:.1f}, do not meet: take more temperatures or chains"
    return Normalizer(log_z, stderr, lower, lower_stderr, upper, upper_stderr, acceptance, "" if meet else apart)


def _estimates(forward: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lower bound, upper bound and Bennett's estimate for each of R samples of log weights: (R, n), (R, m) -> (R,) each."""
    lower = forward.logsumexp(1) - math.log(forward.shape[1])
    upper = math.log(reverse.shape[1]) - (-reverse).logsumexp(1)
    shift = math.log(forward.shape[1] / reverse.shape[1])
    # Bennett: log Z is the number `middle` at which `ahead` and `back` are equal.
    both = torch.cat([forward, reverse], 1)
    low, high = both.amin(1) - 50, both.amax(1) + 50  # the solution lies between these
    for _ in range(80):  # bisection to float64's rounding: as `middle` grows, `ahead` falls and `back` rises
        middle = (low + high) / 2
        ahead = torch.sigmoid(forward - middle[:, None] - shift).sum(1)
        back = torch.sigmoid(middle[:, None] - reverse + shift).sum(1)
        low, high = torch.where(ahead > back, middle, low), torch.where(ahead > back, high, middle)
    return lower, upper, (low + high) / 2
