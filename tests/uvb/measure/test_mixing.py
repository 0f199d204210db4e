"""Measures of mixing, on chains with known values."""

import math

import pytest
import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.measure.mixing import (
    chain_statistics,
    classes_visited,
    principal_component,
    steps_to_visit_all,
    transition_counts,
)
from uvb.noise import generator

LABELS = torch.tensor([[0, 1], [0, 1], [2, -1], [1, 1], [0, 1]])  # (5 jumps, 2 chains), 3 classes


def autoregressive(rho: float, draws: int, chains: int) -> Tensor:
    noise = torch.randn(draws, chains, generator=generator(0, "ar"), dtype=torch.float64)
    x = [noise[0]]
    for step in noise[1:]:
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * step)
    return torch.stack(x)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_chain_statistics_of_an_autoregressive_chain(rho: float) -> None:
    """Its integrated autocorrelation time is (1 + ρ) / (1 - ρ)."""
    stats = chain_statistics(autoregressive(rho, draws=4000, chains=64), steps_between=10)
    assert stats.integrated_autocorrelation_time == pytest.approx((1 + rho) / (1 - rho), rel=0.1)
    assert stats.effective_sample_size == pytest.approx(256_000 / stats.integrated_autocorrelation_time)
    assert stats.effective_sample_size_per_step == pytest.approx(0.1 / stats.integrated_autocorrelation_time)
    assert stats.split_r_hat == pytest.approx(1, abs=0.01)


def test_split_r_hat_is_large_for_chains_apart_and_for_a_drifting_chain() -> None:
    x = autoregressive(0.0, draws=500, chains=4)
    assert chain_statistics(x + torch.tensor([0.0, 0.0, 0.0, 5.0])).split_r_hat > 1.5
    drift = torch.linspace(0, 5, 500)[:, None]
    assert chain_statistics(x[:, :1] + drift).split_r_hat > 1.5
    assert chain_statistics(x[:, :1]).split_r_hat < 1.02


def test_split_r_hat_of_an_odd_chain_leaves_out_the_middle() -> None:
    """By definition R̂² is the pooled variance of the half chains, divided by the mean of their variances."""
    x = autoregressive(0.5, draws=21, chains=3)
    halves = torch.cat([x[:10], x[11:]], dim=1)  # (10 draws, 6 half chains)
    within, between = halves.var(0).mean(), halves.mean(0).var()
    expected = math.sqrt((9 / 10 * within + between) / within)
    assert chain_statistics(x).split_r_hat == pytest.approx(expected)


def test_chain_statistics_of_a_stuck_chain_are_nan() -> None:
    x = autoregressive(0.0, draws=50, chains=2)
    x[:, 1] = 1.0
    assert math.isnan(chain_statistics(x).effective_sample_size)


def test_classes_visited_counts_by_chain_and_jump() -> None:
    assert classes_visited(LABELS, 3).tolist() == [[1, 1], [1, 1], [2, 1], [3, 1], [3, 1]]


def test_steps_to_visit_all_is_none_for_a_chain_that_never_does() -> None:
    assert steps_to_visit_all(LABELS, 3) == [4, None]
    assert steps_to_visit_all(LABELS, 3, steps_between_jumps=10) == [40, None]


def test_transition_counts_leave_out_missing_labels() -> None:
    assert transition_counts(LABELS, 3).tolist() == [[1, 0, 1], [1, 2, 0], [0, 1, 0]]


def test_transition_counts_of_a_markov_chain_give_its_matrix() -> None:
    p = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.6, 0.4]], dtype=torch.float64)
    g = generator(0, "markov")
    labels = [torch.zeros(20, dtype=torch.long)]
    for _ in range(2000):
        labels.append(torch.multinomial(p[labels[-1]], 1, generator=g).flatten())
    counts = transition_counts(torch.stack(labels), 3).double()
    torch.testing.assert_close(counts / counts.sum(1, keepdim=True), p, atol=0.02, rtol=0)


@pytest.mark.parametrize("draws", [2, 40])  # 4 images of 6 pixels, and 80
def test_principal_component_scores_are_coordinates_along_it(draws: int) -> None:
    """The images lie along one direction. The component has the sign that makes its largest entry positive: 0.8, not -0.8."""
    g = generator(0, "pc")
    t = torch.randn(draws, 2, generator=g, dtype=torch.float64)
    direction = torch.tensor([[[3.0, 0.0, 0.0], [0.0, -4.0, 0.0]]]).double() / 5  # (1, 2, 3), unit
    noise = 1e-6 * torch.randn(draws, 2, 1, 2, 3, generator=g, dtype=torch.float64)
    images = 0.5 + t[:, :, None, None, None] * direction + noise
    torch.testing.assert_close(principal_component(images), -(t - t.mean()), atol=1e-4, rtol=0)


@pytest.mark.parametrize("draws", [2, 40])
def test_principal_component_of_equal_images_is_zero(draws: int) -> None:
    images = torch.full((draws, 2, 1, 4, 4), 0.25)
    assert torch.equal(principal_component(images), torch.zeros(draws, 2, dtype=torch.float64))


def test_mixing_refuses_bad_labels_and_series() -> None:
    with pytest.raises(UserError, match="labels"):
        classes_visited(torch.tensor([[3]]), 3)
    with pytest.raises(UserError, match="at least 4"):
        chain_statistics(torch.zeros(3, 2))
    with pytest.raises(UserError, match="diverged"):
        chain_statistics(torch.full((10, 2), math.nan))
