"""The cost of mixing, for energies with a known cost, and for chains that do not mix."""

import pytest
import torch
from torch import Tensor

from tests.support.builders import tiny_spec
from tests.uvb.experiments.helpers import Gaussian, context_of, run
from uvb.data import ImageSet
from uvb.experiments.mixing import CONVERGED, SHORT, mixing
from uvb.measure.mixing import power_law


def test_mixing_finds_the_cost_of_langevin_on_a_gaussian(images: ImageSet) -> None:
    """A step multiplies y - mean by ρ = 1 - δ²/variance, so an independent sample costs (1 + ρ)/(1 - ρ) gradients."""
    grid = {"langevin": [{"delta": 0.8}], "mala": [{"delta": 0.4}], "hmc": [{"delta": 0.5, "leapfrogs": 2}]}
    values = mixing(Gaussian(variance=1.0), tiny_spec(images), context_of(images, scale=1.0), grid).scalars
    langevin, mala, hmc = values["rows"]
    rho = 1 - 0.64
    assert langevin["ess_per_gradient"] == pytest.approx((1 - rho) / (1 + rho), rel=0.15)
    assert langevin["split_rhat"] < CONVERGED
    assert langevin["acceptance"] is None
    assert 0 < mala["acceptance"] < 1
    assert hmc["settings"] == {"delta": 0.5, "leapfrogs": 2}
    assert values["best"] in values["rows"]


def test_mixing_gives_a_message_and_no_number_if_chains_diverge_stick_or_do_not_mix(images: ImageSet) -> None:
    grid = {"langevin": [{"delta": 3.0}, {"delta": 0.01}], "mala": [{"delta": 30.0}]}
    values = mixing(Gaussian(variance=1.0), tiny_spec(images), context_of(images, scale=0.5), grid).scalars
    diverged, slow, stuck = values["rows"]
    assert "diverged" in diverged["message"]
    assert "not mixed after 400 gradients" in slow["message"]
    assert "no proposal was accepted" in stuck["message"]
    assert [row["ess_per_gradient"] for row in values["rows"]] == [None] * 3
    assert values["best"] is None


def test_mixing_settings_scale_with_sigma(images: ImageSet) -> None:
    """If an energy depends only on y/σ, a setting in units of σ costs the same at every σ."""

    class Scaled(Gaussian):
        def energy(self, y: Tensor, eps: Tensor) -> Tensor:
            return (y / self.sigma).square().flatten(1).sum(1) / 2

    costs = []
    for sigma in (1.0, 0.5):
        rows = run("mixing_over_sigma", Scaled(sigma=sigma), images, scale=0.5).scalars["rows"]
        assert len(rows) == sum(map(len, SHORT.values()))
        costs.append([row["ess_per_gradient"] or 0 for row in rows])
    torch.testing.assert_close(torch.tensor(costs[0]), torch.tensor(costs[1]), rtol=0.5, atol=0.02)


def test_power_law_recovers_an_exact_one() -> None:
    scale, power, error = power_law([0.3, 0.5, 1.0], [2 * s**-3 for s in (0.3, 0.5, 1.0)])
    assert (scale, power, error) == pytest.approx((2, -3, 0), abs=1e-6)
