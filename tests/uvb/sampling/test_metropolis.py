"""Samplers with a Metropolis test have no bias where Langevin has a known one. With a random energy, all chains use one ε."""

import math

import pytest
import torch
from torch import Tensor

from tests.support.random_energy import RandomCenter
from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.models.base import Energy
from uvb.noise import generator, normal
from uvb.sampling import get_sampler, sampler_names
from uvb.sampling.chains import WalkState, begin, begin_at, held_noise
from uvb.sampling.walk_jump import WalkJump, jump, walk_step

EXACT = [name for name in sampler_names() if get_sampler(name).exact]
SHAPE = (1, 2, 2)


def walk(energy: Energy, state: WalkState, config: WalkJump, steps: int, warm_up: int) -> tuple[WalkState, Tensor]:
    """The last state, and all positions after the warm-up (T, B, C, H, W)."""
    kept = []
    for step in range(steps):
        state = walk_step(energy, state, config, seed=0)
        if step >= warm_up:
            kept.append(state.y)
    return state, torch.stack(kept)


def test_exact_samplers_are_baoab_metropolis_hmc_and_mala() -> None:
    assert EXACT == ["baoab_metropolis", "hmc", "mala"]


@pytest.mark.parametrize("sampler", EXACT)
def test_metropolis_samplers_have_the_variance_of_a_gaussian_at_a_large_step(sampler: str) -> None:
    """At this step Langevin's variance is s² / (1 - δ²/2s²) = 1.37 s². With a Metropolis test it is s². Here s² = 1.25."""
    energy = GaussianMixture(torch.ones(1), torch.full((1, *SHAPE), 0.5), torch.tensor([0.25])).energy(1.0)
    start = begin_at(0.5 + math.sqrt(1.25) * normal((20_000, *SHAPE), 1, "start"), 0)
    for name, expected in (("langevin", 1.25 / (1 - 0.82**2 / 2.5)), (sampler, 1.25)):
        _, y = walk(energy, start, WalkJump(delta=0.82, sampler=name, batch=None), 30, 10)
        assert float((y - 0.5).square().mean()) == pytest.approx(expected, rel=0.012), name


@pytest.mark.parametrize("sampler", EXACT)
def test_metropolis_samplers_have_the_variance_of_a_mixture(sampler: str) -> None:
    """40,000 chains begin at samples of ±1.5 + N(0, 1) in one dimension. Langevin's second moment is at least 0.1 too large."""
    pair = GaussianMixture(torch.tensor([0.5, 0.5]), torch.tensor([-1.5, 1.5]).reshape(2, 1, 1, 1), torch.zeros(2))
    g = generator(0, "start")
    y = pair.sample(40_000, g)
    start, moments = begin_at(y + torch.randn(y.shape, generator=g), 0), {}
    for name in ("langevin", sampler):
        _, y = walk(pair.energy(1.0), start, WalkJump(delta=math.sqrt(0.5), sampler=name, batch=None), 40, 15)
        moments[name] = float(y.square().mean()) - (1 + 1.5**2)
    assert moments["langevin"] > 0.1
    assert abs(moments[sampler]) < 0.03


def test_mala_is_hmc_of_one_leapfrog() -> None:
    """Both samplers make the proposal of Eq. 19. The test writes out the proposal and the acceptance."""
    energy = GaussianMixture(torch.ones(1), torch.zeros(1, *SHAPE), torch.tensor([0.5])).energy(1.0)
    start, none = begin_at(normal((500, *SHAPE), 0, "start").double(), 0), torch.empty(500, 0)
    mala = walk_step(energy, start, WalkJump(delta=0.9, sampler="mala"), 0)
    hmc = walk_step(energy, start, WalkJump(delta=0.9 * math.sqrt(2), sampler="hmc", settings={"leapfrogs": 1}), 0)
    assert torch.equal(mala.y, hmc.y)

    def log_proposal(there: Tensor, here: Tensor) -> Tensor:
        mean = here - 0.81 * energy.gradient(here, none)
        return -(there - mean).square().flatten(1).sum(1) / (4 * 0.81)

    noise = normal((500, *SHAPE), 0, "walk", 0).double()
    proposal = start.y - 0.81 * energy.gradient(start.y, none) + math.sqrt(2) * 0.9 * noise
    log_ratio = energy.energy(start.y, none) - energy.energy(proposal, none)
    log_ratio += log_proposal(start.y, proposal) - log_proposal(proposal, start.y)
    uniform = torch.rand(500, generator=generator(0, "accept", 0))
    accepted = uniform.log() < log_ratio
    assert 0.2 < float(accepted.double().mean()) < 0.9
    assert torch.equal(mala.accepted, accepted.long())
    torch.testing.assert_close(mala.y, torch.where(accepted.reshape(-1, 1, 1, 1), proposal, start.y))


@pytest.mark.parametrize("sampler", EXACT)
def test_acceptance_rate_rises_to_one_with_smaller_steps(sampler: str) -> None:
    energy = GaussianMixture(torch.ones(1), torch.zeros(1, 1, 8, 8), torch.zeros(1)).energy(1.0)
    start, rates = begin_at(normal((400, 1, 8, 8), 0, "start"), 0), []
    for delta in (0.05, 0.5, 1.0, 30.0):
        state, _ = walk(energy, start, WalkJump(delta=delta, sampler=sampler, batch=None), 10, 0)
        rates.append(float(state.accepted.double().mean()) / state.step)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.98
    assert rates[1] > 0.5
    assert rates[-1] == 0
    assert torch.equal(state.y, start.y), "a chain stays where it is if all its proposals are rejected"


@pytest.mark.parametrize("sampler", EXACT)
def test_metropolis_samplers_hold_one_epsilon_for_all_chains_and_steps(sampler: str) -> None:
    """The seed determines one ε. All chains sample the density of a random energy at this ε, and jump with it."""
    energy = RandomCenter(1.0)
    eps = held_noise(energy, 3000, 0, torch.zeros(1))
    assert torch.equal(eps, eps[:1].expand_as(eps))
    config = WalkJump(delta=0.6, sampler=sampler, batch=None)
    state, y = walk(energy, begin(3000, SHAPE, 0), config, 60, 30)
    assert float(y.mean()) == pytest.approx(float(eps[0].mean()), abs=0.02)
    assert float(y.var()) == pytest.approx(1.0, rel=0.03)
    torch.testing.assert_close(jump(energy, state, config, 0).x_hat, energy(state.y, eps))


@pytest.mark.parametrize(("sampler", "gradients"), [("mala", 1), ("baoab_metropolis", 1), ("hmc", 4)])
def test_step_costs_the_gradients_it_declares(sampler: str, gradients: int) -> None:
    """The first step costs one more gradient, at the starting point."""
    counted = []

    class Counting(RandomCenter):
        def value_and_gradient(self, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
            counted.append(len(y))
            return super().value_and_gradient(y, eps)

    config = WalkJump(sampler=sampler, batch=None)
    assert config.gradients_per_step == gradients
    walk(Counting(1.0), begin(2, SHAPE, 0), config, 5, 0)
    assert len(counted) == 1 + 5 * gradients


def test_value_and_gradient_equals_energy_and_gradient() -> None:
    y, eps = normal((4, *SHAPE), 0, "y"), normal((4, 2), 0, "eps")
    value, gradient = RandomCenter(1.0).value_and_gradient(y, eps)
    torch.testing.assert_close(value, RandomCenter(1.0).energy(y, eps))
    torch.testing.assert_close(gradient, RandomCenter(1.0).gradient(y, eps))
    assert not value.requires_grad
