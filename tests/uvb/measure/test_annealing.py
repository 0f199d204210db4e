"""Annealing finds a known log Z, and de Bruijn's identity holds for known entropies and losses."""

import math

import pytest
import torch
from torch import Tensor

from tests.support.mixtures import bayes_loss
from uvb.data import load_dataset
from uvb.data.mixture import true_mixture
from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.measure.annealing import Annealer, Annealing, combined, normalizer
from uvb.measure.entropy import entropy_growth
from uvb.measure.gaussian_fit import GaussianFit, fit_gaussian
from uvb.models.base import Energy
from uvb.noise import generator, normal
from uvb.sampling.chains import held_noise

LOG_Z = 123.4


class Lowered(Energy):
    """A mixture's energy minus `LOG_Z`. The mixture's energy has log Z = 0, so this energy has log Z = `LOG_Z`."""

    def __init__(self, mixture: GaussianMixture, sigma: float) -> None:
        super().__init__(sigma)
        self.known = mixture.energy(sigma)

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return self.known.energy(y, eps) - LOG_Z

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        return self.known.gradient(y, eps)


class Random(Energy):
    """(1 + ε²) ‖y‖²/2: its log Z depends on ε."""

    noise_dim = 1

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return (1 + eps[:, 0].square()) * y.square().flatten(1).sum(1) / 2


class Counted(Energy):
    """‖y‖²/2. It counts gradients, one for each image."""

    count = 0

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return y.square().flatten(1).sum(1) / 2

    def gradient(self, y: Tensor, eps: Tensor) -> Tensor:
        self.count += len(y)
        return y


def noisy(mixture: GaussianMixture, n: int, sigma: float) -> Tensor:
    g = generator(1, "y")
    x = mixture.sample(n, g)
    return x + sigma * torch.randn(x.shape, generator=g).to(x)


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.3])
def test_log_z_of_a_mixture_in_64_dimensions_is_right_to_0_05_nats(sigma: float) -> None:
    """The mixture has eight components. The chains begin at the Gaussian with the mean and covariance of Y."""
    mixture, config = true_mixture(), Annealing(chains=256, temperatures=100)
    base = fit_gaussian(load_dataset("mixture"), sigma, 20_000, torch.zeros(1).double())
    found = normalizer(base, Lowered(mixture, sigma), noisy(mixture, 256, sigma), config, 0)
    assert found.message == ""
    assert found.log_z == pytest.approx(LOG_Z, abs=0.05)
    assert found.stderr < 0.02
    assert abs(found.log_z - LOG_Z) < 4 * found.stderr
    assert found.lower - 4 * found.lower_stderr < LOG_Z < found.upper + 4 * found.upper_stderr
    assert found.acceptance > 0.6


def test_log_z_of_a_random_energy_uses_the_held_epsilon() -> None:
    """All chains and steps have the one ε that `held_noise` draws. For this ε the density is Gaussian, and log Z is known."""
    energy = Random(1.0)
    base = GaussianFit(torch.zeros(1, 2, 2).double(), torch.eye(4).double(), torch.ones(4).double(), 1.0)
    precision = 1 + float(held_noise(energy, 1, 7, torch.zeros(1).double())) ** 2
    start = normal((200, 1, 2, 2), 1, "start").double() / math.sqrt(precision)
    found = normalizer(base, energy, start, Annealing(chains=200, temperatures=40), 7)
    assert found.log_z == pytest.approx(2 * math.log(2 * math.pi / precision), abs=0.05)


@pytest.mark.parametrize(("temperatures", "leapfrogs"), [(1, 3), (7, 3), (20, 2)])
@pytest.mark.parametrize("forward", [True, False])
def test_anneal_takes_the_declared_number_of_gradients(temperatures: int, leapfrogs: int, forward: bool) -> None:
    energy, config = Counted(1.0), Annealing(temperatures=temperatures, leapfrogs=leapfrogs)
    base = GaussianFit(torch.zeros(1, 2, 2).double(), torch.eye(4).double(), torch.ones(4).double(), 1.0)
    Annealer(base, energy, config, 0).anneal(normal((5, 1, 2, 2), 1, "start").double(), forward=forward)
    assert energy.count == 5 * config.gradients


def test_combined_estimates_log_z_from_gaussian_weights() -> None:
    """By Crooks' relation log Z = c, if log weights are N(c - s²/2, s²) forward and N(c + s²/2, s²) in reverse. Here s = 1."""
    g = generator(0, "weights")
    forward, reverse = (5 + sign * 0.5 + torch.randn(4000, generator=g, dtype=torch.float64) for sign in (-1, 1))
    found = combined(forward, reverse[:2000])
    assert found.log_z == pytest.approx(5, abs=4 * found.stderr)
    assert found.stderr < 0.05
    assert found.lower == pytest.approx(5, abs=0.1)
    assert found.upper == pytest.approx(5, abs=0.15)


def test_combined_says_when_bounds_do_not_meet_or_chains_diverge() -> None:
    weights = torch.zeros(20, dtype=torch.float64)
    assert "do not meet" in combined(weights, weights + 1.0).message
    assert "do not meet" in combined(weights + 1.0, weights).message
    assert combined(weights, weights + 0.1).message == ""
    lost = combined(weights, weights.index_fill(0, torch.tensor([3]), math.nan))
    assert "1 annealed chain diverged" in lost.message
    assert math.isnan(lost.log_z)
    assert "no proposal was accepted" in combined(weights, weights, acceptance=0.0).message


def test_fit_gaussian_has_the_moments_of_y() -> None:
    images = load_dataset("digits")
    fit = fit_gaussian(images, 0.5, 1000, torch.zeros(1).double())
    x = images.to_unit(images.train[:1000], torch.float64)
    torch.testing.assert_close(fit.mean, x.mean(0))
    covariance = torch.cov(x.flatten(1).T, correction=0) + 0.25 * torch.eye(64)
    known = torch.distributions.MultivariateNormal(x.mean(0).flatten(), covariance)
    y = fit.sample(50, generator(0, "y"))
    torch.testing.assert_close(fit.energy(y, torch.empty(50, 0)), -known.log_prob(y.flatten(1)))
    numeric = Energy.gradient(fit, y, torch.empty(50, 0))
    torch.testing.assert_close(fit.gradient(y, torch.empty(50, 0)), numeric)
    drawn = fit.sample(40_000, generator(1, "y")).flatten(1)
    torch.testing.assert_close(torch.cov(drawn.T), covariance, atol=0.02, rtol=0)


def test_entropy_growth_of_a_gaussian_is_its_closed_form() -> None:
    """The entropy is d/2 log(v + σ²) + constant, and the Bayes loss is d v σ²/(v + σ²)."""
    sigmas, v, d = [0.1 * k for k in range(3, 11)], 0.2, 64
    grown = entropy_growth(sigmas, [d * v * s**2 / (v + s**2) for s in sigmas], d)
    expected = [0.5 * d * math.log((v + b * b) / (v + a * a)) for a, b in zip(sigmas, sigmas[1:], strict=False)]
    assert grown == pytest.approx(expected, rel=2e-3)


def test_de_bruijn_holds_on_the_mixture() -> None:
    """Compute each entropy difference from -E log p(y), and again from the Bayes loss over σ.

    Both agree within four standard errors plus 0.02.
    """
    mixture = true_mixture()
    sigmas = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    entropies = [-mixture.log_prob(noisy(mixture, 20_000, s), s) for s in sigmas]
    losses = [bayes_loss(mixture, s, draws=4000) for s in sigmas]
    grown = entropy_growth(sigmas, [loss.value for loss in losses], 64)
    for i, growth in enumerate(grown):
        measured = entropies[i + 1] - entropies[i]  # both from the same x and noise, so the error is small
        error = float(measured.std()) / math.sqrt(20_000)
        assert growth == pytest.approx(float(measured.mean()), abs=4 * error + 0.02), sigmas[i]
    total = float((entropies[-1] - entropies[0]).mean())
    assert sum(grown) == pytest.approx(total, abs=0.1)
    assert total > 60
