"""Posterior sampling given a measurement v = A y + N(0, τ² I), compared with the closed form on a Gaussian mixture."""

import pytest
import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.experiments.restoration import coverage
from uvb.noise import generator, normal
from uvb.sampling.composed import TASKS, Conditioned, measurement, restore

SHAPE, SIGMA, TAU = (1, 2, 4), 0.8, 0.4


def mixture() -> GaussianMixture:
    means = torch.stack([torch.full(SHAPE, -0.6), torch.linspace(0, 1, 8).reshape(SHAPE)]).double()
    return GaussianMixture(torch.tensor([0.3, 0.7]).double(), means, torch.tensor([0.1, 0.4]).double())


def matrix(task: str) -> Tensor:
    """The matrix (m, 8) of the linear map A, found by applying A to the unit images."""
    units = torch.eye(8).double().reshape(8, *SHAPE)
    return measurement(task, SHAPE, units).apply(units).flatten(1).T


def closed_form(task: str, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each pixel of Y given the measurement v: (N, 8) each.

    Every component is Gaussian, so each component's posterior is Gaussian too.
    """
    a, truth, v = matrix(task), mixture(), observed.flatten(1)
    logs, means, variances = [], [], []
    for weight, mean, variance in zip(truth.weights, truth.means.flatten(1), truth.variances, strict=True):
        covariance = (variance + SIGMA**2) * torch.eye(8).double()  # of Y
        of_v = a @ covariance @ a.T + TAU**2 * torch.eye(len(a)).double()
        logs.append(weight.log() + torch.distributions.MultivariateNormal(a @ mean, of_v).log_prob(v))
        gain = covariance @ a.T @ torch.linalg.inv(of_v)
        means.append(mean + (v - a @ mean) @ gain.T)
        variances.append((covariance - gain @ a @ covariance).diagonal())
    share = torch.stack(logs, 1).softmax(1)[:, :, None]  # (N, K, 1)
    centers, component_variances = torch.stack(means, 1), torch.stack(variances)
    mean = (share * centers).sum(1)
    return mean, (share * (component_variances + centers.square())).sum(1) - mean.square()


def drawn(task: str, n: int) -> tuple[Tensor, Tensor]:
    """Noisy images y of the mixture, and their measurements."""
    x = mixture().sample(n, generator(0, "x"))
    y = x + SIGMA * normal(tuple(x.shape), 0, "noise").double()
    clear = measurement(task, SHAPE, y).apply(y)
    return y, clear + TAU * normal(tuple(clear.shape), 0, "measurement").double()


@pytest.mark.parametrize("task", TASKS)
def test_posterior_has_the_mean_and_variance_of_the_closed_form(task: str) -> None:
    _, observed = drawn(task, 3)
    prior, measured = mixture().energy(SIGMA), measurement(task, SHAPE, observed)
    found = restore(prior, measured, observed, TAU, chains=800, draws=30, warm_up=60, seed=0)
    mean, variance = closed_form(task, observed)
    assert found.acceptance > 0.8
    assert found.stopped == 0
    y = found.y.transpose(1, 2).flatten(0, 1).flatten(2)  # (draws x chains, N, 8)
    torch.testing.assert_close(y.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(y.var(0), variance, atol=0.05, rtol=0.08)
    x_hat = mixture().posterior_mean(found.y.flatten(0, 2), SIGMA).reshape(found.x_hat.shape)
    torch.testing.assert_close(found.x_hat, x_hat, atol=1e-6, rtol=0)


def test_coverage_of_90_percent_intervals_is_90_percent() -> None:
    """The 90 % intervals contain 90 % of the pixels of 150 images y. With a prior that is too narrow they contain fewer."""
    y, observed = drawn("inpaint", 150)
    measured, found = measurement("inpaint", SHAPE, observed), {}
    for name, variance in (("true", 0.4), ("narrow", 0.0)):
        truth = mixture()
        energy = GaussianMixture(truth.weights, truth.means, torch.tensor([0.1, variance]).double()).energy(SIGMA)
        draws = restore(energy, measured, observed, TAU, chains=10, draws=20, warm_up=40, seed=0).y
        found[name] = coverage(y, draws)
    assert found["true"] == pytest.approx(0.9, abs=0.03)
    assert found["narrow"] < 0.87


def test_coverage_does_not_depend_on_the_number_of_draws() -> None:
    y = normal((4000, 1, 1, 1), 0, "y")
    for count in (19, 200):
        assert coverage(y, normal((count, 4000, 1, 1, 1, 1), 0, "draws")) == pytest.approx(0.9, abs=0.015)


def test_conditioned_energy_is_the_sum_and_jumps_as_its_prior() -> None:
    y, observed = drawn("deblur", 4)
    prior, measured = mixture().energy(SIGMA), measurement("deblur", SHAPE, y)
    energy, none = Conditioned(prior, measured, observed, TAU), torch.empty(4, 0)
    misfit = (observed - measured.apply(y)).square().flatten(1).sum(1) / (2 * TAU**2)
    torch.testing.assert_close(energy.energy(y, none), prior.energy(y, none) + misfit)
    torch.testing.assert_close(energy(y, none), prior(y, none))


@pytest.mark.parametrize("task", TASKS)
def test_measurement_does_not_increase_an_images_norm(task: str) -> None:
    assert float(torch.linalg.matrix_norm(matrix(task), 2)) <= 1 + 1e-6


def test_measurement_refuses_bad_tasks_sizes_and_noise_in_one_line() -> None:
    with pytest.raises(UserError, match="choose one of: inpaint, deblur, enlarge"):
        measurement("sharpen", SHAPE, torch.zeros(1))
    with pytest.raises(UserError, match="sides must be even"):
        measurement("enlarge", (1, 3, 4), torch.zeros(1))
    with pytest.raises(UserError, match="above 0"):
        Conditioned(mixture().energy(1.0), measurement("deblur", SHAPE, torch.zeros(1)), torch.zeros(1), 0.0)
