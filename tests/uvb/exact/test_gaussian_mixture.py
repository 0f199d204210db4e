"""Gaussian mixtures: the density, the score, the Bayes estimator and the loss are computed in two ways."""

import math

import pytest
import torch
from torch import Tensor

from tests.support.mixtures import bayes_loss, mean_predictor_loss
from uvb.errors import UserError
from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.noise import generator, normal

SHAPE = (1, 2, 3)


def mixture(isotropic: bool = False) -> GaussianMixture:
    g = generator(1, "mixture")
    shape = (3,) if isotropic else (3, *SHAPE)
    return GaussianMixture(
        weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        means=torch.rand(3, *SHAPE, generator=g, dtype=torch.float64),
        variances=0.2 * torch.rand(shape, generator=g, dtype=torch.float64),
    )


def gaussian(variances: Tensor) -> GaussianMixture:
    return GaussianMixture(torch.ones(1), torch.full((1, *SHAPE), 0.5), variances)


@pytest.mark.parametrize("isotropic", [True, False])
def test_log_prob_equals_torch_distributions(isotropic: bool) -> None:
    m, sigma = mixture(isotropic), 0.3
    y = m.sample(20, generator(0, "x"))
    variances = m.variances.reshape(3, -1).expand(3, 6) + sigma**2
    components = torch.distributions.Independent(torch.distributions.Normal(m.means.flatten(1), variances.sqrt()), 1)
    reference = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(m.weights), components)
    torch.testing.assert_close(m.log_prob(y, sigma), reference.log_prob(y.flatten(1)))


@pytest.mark.parametrize("isotropic", [True, False])
def test_score_equals_autograd_and_eq_2(isotropic: bool) -> None:
    """Compare ∇ log p by autograd, in closed form, and from the posterior mean (Eq. 2)."""
    m, eps = mixture(isotropic), torch.empty(20, 0)
    energy = m.energy(0.3).double()
    sigma = float(energy.sigma)
    y = m.sample(20, generator(0, "x")).requires_grad_()
    (score,) = torch.autograd.grad(m.log_prob(y, sigma).sum(), y)
    torch.testing.assert_close(m.score(y, sigma), score)
    torch.testing.assert_close(y + sigma**2 * score, m.posterior_mean(y, sigma))
    torch.testing.assert_close(energy(y, eps), m.posterior_mean(y, sigma))
    torch.testing.assert_close(energy.gradient(y, eps), -score)
    torch.testing.assert_close(energy.energy(y, eps), -m.log_prob(y, sigma))


def test_bayes_loss_of_one_gaussian_is_closed_form() -> None:
    """The loss is exactly Σ_d v σ²/(v + σ²)."""
    loss = bayes_loss(gaussian(torch.tensor([0.25])), 0.5)
    assert loss.value == pytest.approx(6 * 0.25 * 0.25 / 0.5)
    assert loss.standard_error == 0


def test_bayes_loss_of_a_split_gaussian_is_closed_form() -> None:
    """Two equal components are one Gaussian. Their loss is computed by Monte Carlo, but has no spread."""
    v = torch.tensor([0.25, 0.25])
    halves = GaussianMixture(torch.tensor([0.5, 0.5]), torch.full((2, *SHAPE), 0.5), v)
    assert bayes_loss(halves, 0.5, draws=100).value == pytest.approx(bayes_loss(gaussian(v[:1]), 0.5).value, rel=1e-5)


def test_bayes_loss_of_a_mixture_is_its_mean_squared_error() -> None:
    m, sigma, n = mixture(), 0.4, 20_000
    loss = bayes_loss(m, sigma)
    x = m.sample(n, generator(0, "check"))
    y = x + sigma * normal(tuple(x.shape), 0, "check noise").double()
    errors = (x - m.posterior_mean(y, sigma)).square().flatten(1).sum(1)
    spread = math.hypot(loss.standard_error, float(errors.std()) / math.sqrt(n))
    assert abs(loss.value - float(errors.mean())) < 4 * spread
    assert loss == bayes_loss(m, sigma), "the same key must give the same draws"
    assert loss.value < mean_predictor_loss(m)


def test_bayes_loss_error_is_the_spread_of_repeats() -> None:
    m = mixture()
    found = [bayes_loss(m, 0.5, draws=1500, seed=seed) for seed in range(40)]
    spread = torch.tensor([loss.value for loss in found]).std().item()
    assert found[0].standard_error == pytest.approx(spread, rel=0.4)  # the spread of 40 repeats has an error of 11 %


def test_mean_predictor_loss_is_the_variance_of_samples() -> None:
    m = mixture()
    x = m.sample(40_000, generator(0, "variance"))
    assert mean_predictor_loss(m) == pytest.approx(float(x.flatten(1).var(0).sum()), rel=0.02)


def test_mixture_refuses_bad_shapes_weights_and_variances() -> None:
    one = torch.ones(1)
    with pytest.raises(UserError, match="weights must be"):
        GaussianMixture(torch.ones(2), torch.zeros(1, *SHAPE), one)
    with pytest.raises(UserError, match="sum to 1"):
        GaussianMixture(2 * one, torch.zeros(1, *SHAPE), one)
    with pytest.raises(UserError, match="0 or more"):
        gaussian(-one)
