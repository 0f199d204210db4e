"""-log p(y) for energies with a known log Z, and for an energy that has none."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.uvb.experiments.helpers import Gaussian, run
from uvb.data import ImageSet
from uvb.exact.empirical_bayes import EmpiricalBayes


class Raised(EmpiricalBayes):
    """The exact energy of the training set plus 7 nats. It has the same density."""

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return super().energy(y, eps) + 7


class Pit(Gaussian):
    """An energy that falls without end along its first pixel, so the integral of exp(-f) is infinite."""

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return super().energy(y, eps) - 2 * y[:, 0, 0, 0].square()


def test_likelihood_of_the_exact_energy_is_exact_after_a_constant_is_added(images: ImageSet) -> None:
    """The excess over the exact density is the error of log Z. tiny_spec trains on the first 100 images."""
    values = run("likelihood", Raised(images.train[:100], 1.0, levels=images.levels), images, scale=1.0).scalars
    assert values["message"] == ""
    assert values["log_z"] == pytest.approx(-7, abs=0.06)
    assert values["excess"] == pytest.approx(0, abs=0.06)
    model, exact, gaussian = values["rows"]
    assert (model["density"], exact["density"], gaussian["density"]) == ("model", "exact", "gaussian")
    assert model["nll"] - exact["nll"] == pytest.approx(values["excess"])
    assert model["bits"] == pytest.approx(model["nll"] / 64 / 0.6931472)


def test_likelihood_of_a_gaussian_is_its_normal_density(images: ImageSet) -> None:
    """The log Z of N(0.3, 1.2 I) has a closed form."""
    model = Gaussian(mean=0.3, variance=1.2)
    result = run("likelihood", model, images, scale=1.0)
    assert result.scalars["log_z"] == pytest.approx(32 * torch.tensor(2.4 * torch.pi).log().item(), abs=0.06)
    assert result.scalars["lower"] <= result.scalars["upper"] + 0.1
    assert set(result.arrays) == {"model", "exact", "gaussian"}
    assert result.arrays["model"].shape == (60,)


def test_likelihood_of_an_energy_without_log_z_is_a_message_and_no_number(images: ImageSet) -> None:
    result = run("likelihood", Pit(), images, scale=1.0)
    assert result.scalars["message"]
    assert result.scalars["log_z"] is None
    assert result.scalars["rows"][0]["nll"] is None
    assert result.scalars["excess"] is None
    assert "model" not in result.arrays


def test_likelihood_runs_with_fewer_images_than_chains(images: ImageSet) -> None:
    few = dataclasses.replace(images, test=images.test[:5], test_labels=images.test_labels[:5])
    assert run("likelihood", Gaussian(), few).scalars["images"] == 5
