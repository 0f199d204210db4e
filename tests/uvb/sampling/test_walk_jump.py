"""Langevin, BAOAB and jumps: moments with their known discretization error, exact continuation, divergence."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.random_energy import RandomCenter
from uvb.errors import UserError
from uvb.exact.empirical_bayes import EmpiricalBayes, posterior_mean
from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.models.base import Energy
from uvb.noise import generator
from uvb.sampling import sampler_names
from uvb.sampling.baoab import baoab_update
from uvb.sampling.chains import WalkState, begin, chain_gradient
from uvb.sampling.langevin import langevin_update
from uvb.sampling.walk_jump import WalkJump, jump, walk_at, walk_jump, walk_step

SHAPE = (1, 2, 2)
ONE, ZERO = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)


def langevin_variance(s2: float, delta: float) -> float:
    """Stationary variance of Eq. 19 on y²/2s²: the update is linear, y' = a y + b ε, so the variance is b²/(1 - a²)."""
    a = langevin_update(ONE, ONE / s2, ZERO, delta)
    b = langevin_update(ZERO, ZERO, ONE, delta)
    return float(b**2 / (1 - a**2))


def baoab_covariance(s2: float, delta: float, friction: float) -> Tensor:
    """Stationary covariance of position and velocity after a step, with its last half-kick.

    `baoab_update` leaves this half-kick out, so first S = A S Aᵀ + b bᵀ is solved without it.
    """

    def step(y: Tensor, v: Tensor, noise: Tensor) -> Tensor:
        return torch.stack(baoab_update(y, v, y / s2, noise, delta, friction))

    a = torch.stack([step(ONE, ZERO, ZERO), step(ZERO, ONE, ZERO)], 1)
    b = step(ZERO, ZERO, ONE)
    # vec(A S Aᵀ) = (A ⊗ A) vec(S)
    before_kick = torch.linalg.solve(torch.eye(4).double() - torch.kron(a, a), torch.outer(b, b).flatten()).reshape(2, 2)
    kick = torch.stack([torch.stack([ONE, ZERO]), torch.stack([-0.5 * delta * ONE / s2, ONE])])
    return kick @ before_kick @ kick.T


@pytest.mark.parametrize("delta", [0.2, 0.5, 1.0])
def test_langevin_has_the_known_variance(delta: float) -> None:
    """The variance is s² / (1 - δ²/2s²)."""
    assert langevin_variance(1.3, delta) == pytest.approx(1.3 / (1 - delta**2 / 2.6), rel=1e-12)


@pytest.mark.parametrize("delta", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("friction", [0.3, 5.0])
def test_baoab_has_the_known_moments(delta: float, friction: float) -> None:
    """Positions have variance s² exactly, and velocities 1 - δ²/4s². Positions and velocities are uncorrelated."""
    expected = torch.diag(torch.tensor([1.3, 1 - delta**2 / 5.2], dtype=torch.float64))
    torch.testing.assert_close(baoab_covariance(1.3, delta, friction), expected)


def test_discretization_error_is_first_order_for_langevin_and_second_for_baoab() -> None:
    """Half the time step (δ² for Langevin, δ for BAOAB) halves Langevin's error and quarters BAOAB's."""
    langevin = [langevin_variance(1.0, math.sqrt(h)) - 1 for h in (0.02, 0.01)]
    baoab = [float(baoab_covariance(1.0, h, 1.0)[1, 1]) - 1 for h in (0.2, 0.1)]
    assert langevin[0] / langevin[1] == pytest.approx(2, rel=0.01)
    assert baoab[0] / baoab[1] == pytest.approx(4, rel=1e-6)


def test_baoab_is_more_exact_than_langevin_on_a_mixture() -> None:
    """60,000 chains measure the variance of the mixture ±1.5 + N(0, 1) in one dimension."""

    def bias(config: WalkJump) -> float:
        pair = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([-1.5, 1.5]).reshape(2, 1, 1, 1), torch.zeros(2))
        energy = pair.energy(1.0)
        start = begin(60_000, (1, 1, 1), 0)
        g = generator(0, "start")
        y = pair.sample(60_000, g) + torch.randn(start.y.shape, generator=g)
        state, total = start._replace(y=y), 0.0
        for step in range(60):
            state = walk_step(energy, state, config, seed=0)
            total += float(state.y.square().mean()) if step >= 20 else 0.0
        return total / 40 - (1 + 1.5**2)

    langevin = bias(WalkJump(delta=math.sqrt(0.5), batch=None))
    baoab = bias(WalkJump(delta=0.5, sampler="baoab", batch=None))
    assert langevin > 0.1
    assert abs(baoab) < 0.02


@pytest.mark.parametrize(("sampler", "expected"), [("langevin", langevin_variance(1.25, 0.6)), ("baoab", 1.25)])
def test_walk_reaches_the_moments_of_a_gaussian(sampler: str, expected: float) -> None:
    """2,000 chains of 4 pixels start from Unif[0, 1] and walk on the density of Y, with X ~ N(0.5, 0.25) and σ = 1."""
    energy = GaussianMixture(torch.ones(1), torch.full((1, *SHAPE), 0.5), torch.tensor([0.25])).energy(1.0)
    config = WalkJump(delta=0.6, sampler=sampler, batch=None)
    state, samples = begin(2000, SHAPE, seed=0), []
    for step in range(80):
        state = walk_step(energy, state, config, seed=0)
        if step >= 40:
            samples.append(state.y)
    y = torch.stack(samples)
    assert float(y.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(y.var()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("sampler", sampler_names())
def test_walk_continued_from_a_saved_state_is_the_same_walk(sampler: str, tmp_path: Path) -> None:
    """The walk is saved between two jumps, loaded and continued. It equals the uninterrupted walk bit for bit."""
    energy, seed = RandomCenter(1.0), 3
    config = WalkJump(steps_between_jumps=4, jumps=5, sampler=sampler)
    whole = list(walk_jump(energy, begin(6, SHAPE, seed), config, seed))

    state = begin(6, SHAPE, seed)
    for _ in range(10):
        state = walk_step(energy, state, config, seed)
    torch.save(tuple(state), tmp_path / "state")
    state = WalkState(*torch.load(tmp_path / "state"))
    rest = list(walk_jump(energy, state, config, seed))

    assert [j.step for _, j in whole] == [4, 8, 12, 16, 20]
    assert [j.step for _, j in rest] == [12, 16, 20]
    for (state_a, jump_a), (state_b, jump_b) in zip(whole[2:], rest, strict=True):
        assert torch.equal(state_a.y, state_b.y)
        assert torch.equal(state_a.velocity, state_b.velocity)
        assert torch.equal(jump_a.x_hat, jump_b.x_hat)
        assert torch.equal(jump_a.energy, jump_b.energy)
    assert not torch.equal(whole[0][1].x_hat, jump(energy, whole[0][0], config, seed + 1).x_hat), "ε is keyed by the seed"


def test_chain_gradient_draws_new_latent_noise_for_every_step_and_chain() -> None:
    """Eq. 17's energy samples z at every step, so Eq. 19 uses a stochastic gradient."""
    state = begin(2, SHAPE, 0)._replace(y=torch.zeros(2, *SHAPE))
    now, later = (chain_gradient(RandomCenter(1.0), state._replace(step=step), seed=0) for step in (0, 1))
    assert not torch.equal(now, later)
    assert not torch.equal(now[0], now[1])


def test_walk_in_batches_equals_walk_of_all_chains() -> None:
    energy = RandomCenter(1.0)
    for sampler in sampler_names():
        config = WalkJump(jumps=2, sampler=sampler, second_jump=True)
        ends = [list(walk_jump(energy, begin(7, SHAPE, 0), replace(config, batch=batch), 0))[-1][1] for batch in (None, 3)]
        torch.testing.assert_close(ends[0].x_hat, ends[1].x_hat)
        torch.testing.assert_close(ends[0].energy, ends[1].energy)


class Cliff(Energy):
    """A quadratic energy that is nan if a pixel is above 50."""

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        over = torch.where(y.flatten(1).amax(1) > 50, torch.nan, 1.0)
        return over * 0.5 * y.square().flatten(1).sum(1)


@pytest.mark.parametrize("sampler", sampler_names())
def test_walk_stops_a_diverging_chain_alone(sampler: str) -> None:
    config = WalkJump(jumps=3, sampler=sampler)
    sound = begin(4, SHAPE, 0)
    bad = sound._replace(y=sound.y.index_fill(0, torch.tensor(1), 60.0))
    first = walk_step(Cliff(1.0), bad, config, 0)
    assert first.alive.tolist() == [True, False, True, True]
    assert torch.equal(first.y[1], bad.y[1]), "a stopped chain stays at its last finite position"
    (end_bad, jump_bad), (end, _) = (list(walk_jump(Cliff(1.0), s, config, 0))[-1] for s in (bad, sound))
    assert end_bad.stopped_at.tolist() == [-1, 1, -1, -1]
    assert jump_bad.alive.tolist() == [True, False, True, True]
    others = [0, 2, 3]
    assert torch.equal(end_bad.y[others], end.y[others])


def test_walk_ends_when_every_chain_has_diverged() -> None:
    class Runaway(Energy):
        def energy(self, y: Tensor, eps: Tensor) -> Tensor:
            return -0.25 * y.pow(4).flatten(1).sum(1)

    walk = list(walk_jump(Runaway(1.0), begin(3, SHAPE, 0), WalkJump(delta=1.0, steps_between_jumps=1), 0))
    end, last = walk[-1]
    assert len(walk) == end.step < 100
    assert not last.alive.any()
    assert all(jump.alive.any() for _, jump in walk[:-1])
    assert not end.alive.any()
    assert bool(end.y.isfinite().all())
    assert bool((end.stopped_at >= 1).all())
    assert int(end.stopped_at.max()) == end.step


def test_jump_is_the_bayes_estimator() -> None:
    """Eq. 20, and the second jump of Sec. 3.3.1."""
    train = torch.rand(20, *SHAPE, generator=generator(0, "train"))
    energy, state = EmpiricalBayes(train, 0.5), begin(3, SHAPE, 0)
    once = jump(energy, state, WalkJump(), 0)
    torch.testing.assert_close(once.x_hat, posterior_mean(state.y, train, 0.5))
    twice = jump(energy, state, WalkJump(second_jump=True), 0)
    torch.testing.assert_close(twice.x_hat, posterior_mean(once.x_hat, train, 0.5))


def test_jump_of_a_random_energy_draws_one_epsilon_for_each_estimate() -> None:
    """x̂(y; ε), x̂(x̂(y; ε); ε′) and f(y; ε): ε and ε′ are the first two draws of the generator keyed by seed and step."""
    energy, seed = RandomCenter(1.0), 3
    state = begin(5, SHAPE, 0)._replace(step=20)
    noise = generator(seed, "jump", 20)
    first, second = (torch.randn(5, energy.noise_dim, generator=noise) for _ in range(2))
    for batch, again in itertools.product((None, 2), (False, True)):
        landed = jump(energy, state, WalkJump(batch=batch, second_jump=again), seed)
        once = energy(state.y, first)
        torch.testing.assert_close(landed.x_hat, energy(once, second) if again else once)
        torch.testing.assert_close(landed.energy, energy.energy(state.y, first))
        assert landed.step == 20


def test_begin_draws_chains_uniform_in_the_cube() -> None:
    y = begin(20_000, SHAPE, 0).y
    assert 0 <= float(y.min()) < 0.01
    assert 0.99 < float(y.max()) <= 1
    assert float(y.var()) == pytest.approx(1 / 12, rel=0.02)


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ({"delta": 0.0}, "delta = 0.0"),
        ({"delta": math.nan}, "delta = nan"),
        ({"jumps": 0}, "jumps = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"sampler": "euler"}, "unknown sampler 'euler'; choose one of: baoab, baoab_metropolis, hmc, langevin, mala"),
        ({"sampler": "baoab", "settings": {"friction": 0.0}}, "friction = 0.0"),
        ({"settings": {"friction": 1.0}}, "langevin has no setting 'friction'; it has: delta"),
    ],
)
def test_walk_jump_refuses_bad_settings_in_one_line(bad: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        WalkJump(**bad)


@pytest.mark.parametrize("sampler", sampler_names())
def test_walk_at_scales_with_sigma(sampler: str) -> None:
    """If an energy depends only on y/σ, positions and time scale with σ."""

    class Scaled(Energy):
        def energy(self, y: Tensor, eps: Tensor) -> Tensor:
            return 0.25 * (y / self.sigma).square().flatten(1).sum(1).square()

    start, ends = begin(3, SHAPE, 0), []
    for sigma in (1.0, 0.5):
        state = start._replace(y=sigma * start.y)
        for _ in range(5):
            state = walk_step(Scaled(sigma), state, walk_at(sigma, sampler=sampler), seed=0)
        ends.append(state.y / sigma)
    torch.testing.assert_close(ends[0], ends[1])
