"""Experiments on energies with known results: denoised rows, attractors, convexity, latents and exact references."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.builders import tiny_spec
from tests.uvb.experiments.helpers import EVALUATION, FP64, Gaussian, Identity, Shaken, context_of, run
from uvb.data import ImageSet
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.exact.reference import reference
from uvb.experiments import Context, _labels, get_experiment
from uvb.experiments.registry import ROWS
from uvb.measure.classifier import classify
from uvb.measure.convexity import smallest_monotonicity
from uvb.measure.losses import EvalConfig
from uvb.models import build_model, get_model
from uvb.models.base import Energy
from uvb.sampling.nebula import gradient_flow
from uvb.spec import DataRef


def test_denoise_rows_jump_twice_with_one_epsilon(images: ImageSet) -> None:
    """x̂(y) and x̂(x̂(y)) of a Gaussian: each jump halves the distance to its mean, because 1 - σ²/s² = 1/2."""
    arrays = run("denoise_rows", Gaussian(mean=0.3, variance=2.0), images).arrays
    torch.testing.assert_close(arrays["xhat"] - 0.3, (arrays["noisy"] - 0.3) / 2)
    torch.testing.assert_close(arrays["xhat2"] - 0.3, (arrays["noisy"] - 0.3) / 4)
    shaken = run("denoise_rows", Shaken(), images).arrays
    once = shaken["xhat"] - shaken["noisy"]
    assert once.flatten(1).std(1).max() < 1e-6  # one shift for all pixels of an image
    assert once[:, 0, 0, 0].std() > 1e-6  # but another for each image
    torch.testing.assert_close(shaken["xhat2"] - shaken["xhat"], once)


def test_energies_of_a_gaussian_are_those_by_hand(images: ImageSet) -> None:
    """With σ² = s² the estimate x̂(y) is the mean, and the mean has energy 0."""
    result = run("energies", Gaussian(variance=1.0), images, scale=1.0)
    x = images.test.double() / images.levels
    by_hand = (x - 0.3).square().flatten(1).sum(1) / 2
    torch.testing.assert_close(result.arrays["f_clean"], by_hand.float(), rtol=1e-5, atol=1e-5)
    assert result.arrays["f_xhat"].abs().max() < 1e-9
    assert result.scalars["noisy_above_clean"] == 1.0
    for name in ("f_clean", "f_xhat", "f_noisy"):
        assert result.scalars[f"{name}_mean"] == pytest.approx(result.arrays[name].mean().item(), rel=1e-6, abs=1e-6)


def test_nebula_of_a_gaussian_ends_at_its_mean(images: ImageSet) -> None:
    result = run("nebula", Gaussian(mean=0.3, variance=2.0), images, scale=1.0)
    arrays, values = result.arrays, result.scalars
    assert all(values["converged"])
    assert (arrays["attractor"] - 0.3).abs().max() < 1e-2
    torch.testing.assert_close(arrays["step1"] - 0.3, (arrays["noisy"] - 0.3) / 2)  # 1 - σ²/s²
    torch.testing.assert_close(arrays["step2"] - 0.3, (arrays["noisy"] - 0.3) / 4)
    assert bool((arrays["energy"].diff(dim=0) <= 0).all())
    assert values["energy_noisy"] == pytest.approx(arrays["energy"][0].tolist())
    assert len(set(values["labels_after"])) == 1
    assert values["labels_before"] == arrays["classes"][0].tolist()  # both are classes of x̂(y), because the flow starts at y
    assert len(arrays["classes"]) == len(arrays["energy"])


def test_nebula_gives_the_flow_time_in_units_of_sigma_squared(images: ImageSet) -> None:
    """The flow time is t/σ², where t is the sum of the steps. For a Gaussian energy y - m decays about as exp(-t/s²)."""
    model = Gaussian(mean=0.3, variance=1.0, sigma=0.5)
    result = run("nebula", model, images, scale=1.0)
    arrays, values = result.arrays, result.scalars
    *_, end = gradient_flow(model, arrays["noisy"], arrays["noisy"].new_empty(len(arrays["noisy"]), 0), max_steps=5000)
    assert torch.equal(end.y, arrays["attractor"])
    assert values["flow_time"] == pytest.approx((end.time / 0.25).tolist())
    left = (arrays["attractor"] - 0.3).flatten(1).norm(dim=1) / (arrays["noisy"] - 0.3).flatten(1).norm(dim=1)
    assert (-left.log() / 0.25).tolist() == pytest.approx(values["flow_time"], rel=0.2)  # Euler's steps are up to σ² long
    torch.testing.assert_close(arrays["step1"] - 0.3, (arrays["noisy"] - 0.3) * (1 - 0.25))


def test_convexity_takes_half_its_pairs_along_differences_of_images(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def spy(energy: Energy, centers: Tensor, directions: Tensor, *rest: object) -> object:
        seen.append(directions)
        return smallest_monotonicity(energy, centers, directions, *rest)

    monkeypatch.setattr("uvb.experiments.convexity.smallest_monotonicity", spy)
    run("convexity", Gaussian(), images, scale=1.0)
    x = images.test.double().flatten(1) / images.levels
    differences = F.normalize(x[:, None] - x[None], dim=2).reshape(-1, 64)  # between any two test images
    found = (F.normalize(seen[0].flatten(1), dim=1) @ differences.T).max(1).values  # cosines: 1 along a difference
    torch.testing.assert_close(found[0::2], torch.ones_like(found[0::2]))
    assert found[1::2].max() < 0.9
    assert torch.equal(seen[0], seen[1])  # the model and the exact energy see the same pairs


def test_accuracies_are_the_shares_of_right_labels(images: ImageSet) -> None:
    """This estimator returns its input, so its jumps get the labels of noisy images."""
    context = context_of(images, scale=1.0)
    classifier = _labels.labeller(context)
    assert classifier is not None
    found = _labels.accuracies(classifier, Identity(sigma=0.5), tiny_spec(images, sigma=0.5), context)
    named = classify(classifier, images.test.float() / images.levels)
    assert found["clean"] == pytest.approx((named == images.test_labels).double().mean().item())
    assert found["jump"] == found["second_jump"] < found["clean"]


def test_convexity_of_a_gaussian_and_of_the_exact_energy(images: ImageSet) -> None:
    gaussian = run("convexity", Gaussian(variance=2.0), images, scale=1.0).scalars
    assert [m for _, m in gaussian["measured"]] == pytest.approx([0.5] * len(gaussian["measured"]))
    exact = run("convexity", EmpiricalBayes(images.train[:100], 1.0, levels=images.levels), images, scale=1.0).scalars
    assert [r for r, _ in exact["bound"]] == [r for r, _ in exact["measured"]]
    for (distance, bound), (_, measured), (_, expected) in zip(exact["bound"], exact["measured"], exact["exact"], strict=True):
        assert bound == pytest.approx(1 - 8 / distance)  # Eq. 21 with σ = 1 and d = 64
        assert measured == pytest.approx(expected)  # tiny_spec trains on the first 100 images
        assert bound <= measured < 1


def test_one_z_returns_one_draw_and_the_mean_of_a_thousand(images: ImageSet) -> None:
    result = run("one_z", Shaken(), images, scale=1.0)
    one, mean = result.arrays["one"], result.arrays["mean"]
    shake = (one - mean)[:, 0, 0, 0]
    assert ((one - mean) - shake.reshape(-1, 1, 1, 1)).abs().max() < 1e-5  # one number for each image
    assert result.scalars["draws"] == 1000
    assert result.scalars["max_difference"] == pytest.approx(shake.abs().max().item())
    rows = run("denoise_rows", Shaken(), images).arrays
    assert torch.equal(rows["xhat"], one)  # Figure 2's own images, noise and z
    # The mean of 1,000 is within 5 standard errors of ε's mean, 0.
    assert (mean - rows["noisy"]).abs().max() < 0.1 * 5 / 1000**0.5


def test_decoder_samples_have_rows_for_models_trained_by_an_elbo(images: ImageSet) -> None:
    for name in ("uvb", "vae", "sigma_vae"):
        spec = tiny_spec(images, name)
        model = build_model(spec).double()
        result = get_experiment("decoder_samples").run(model, spec, context_of(images))
        assert result.arrays["samples"].shape == (48, 1, 8, 8)
        assert ("recon" in result.arrays) == (get_model(name).objective != "denoise")


def test_score_error_of_the_exact_estimator_is_zero(images: ImageSet) -> None:
    exact = run("score_error", EmpiricalBayes(images.train[:100], 1.0, levels=images.levels), images, scale=1.0)
    assert all(row["error"] < 1e-20 for row in exact.scalars["rows"])
    gaussian = run("score_error", Gaussian(), images, scale=1.0)
    assert all(row["error"] > 1 for row in gaussian.scalars["rows"])


def test_score_error_is_in_units_of_the_score(images: ImageSet) -> None:
    """‖x̂ - x̂*‖² = σ⁴ ‖score - score*‖², because x̂(y) = y + σ² score(y) (Eq. 2). Here every pixel is wrong by 0.1."""

    class Off(EmpiricalBayes):
        def forward(self, y: Tensor, eps: Tensor) -> Tensor:
            return super().forward(y, eps) + 0.1

    rows = run("score_error", Off(images.train[:100], 0.5, levels=images.levels), images, scale=1.0).scalars["rows"]
    for row in (row for row in rows if row["estimator"] == "energy"):
        assert row["error"] == pytest.approx(64 * 0.1**2)
        assert row["score_error"] == pytest.approx(64 * 0.1**2 / 0.5**4)


def test_score_error_on_training_images_is_the_excess_over_the_floor(digits: ImageSet) -> None:
    """E‖x - x̂‖² - floor and E‖x̂ - x̂_exact‖² are different sums. They are equal within their errors."""
    context = Context(digits, FP64, EvalConfig(draws=1), scale=1.0)
    spec = tiny_spec(digits, data=DataRef("digits", digits.checksum, digits.shape, len(digits.train)))
    model = Gaussian(mean=0.3, variance=1.2)
    error = next(r for r in get_experiment("score_error").run(model, spec, context).scalars["rows"] if r["split"] == "train")
    floor = reference(digits, 1.0, EvalConfig(draws=1), FP64)
    loss = next(r for r in get_experiment("losses").run(model, spec, context).scalars["rows"] if r["split"] == "train")
    assert loss["loss"] - floor.floor == pytest.approx(error["error"], abs=5 * (loss["stderr"] + floor.floor_stderr))
    assert error["error"] > 20 * (loss["stderr"] + floor.floor_stderr)  # so the tolerance above is much smaller


def test_reference_equals_the_losses_of_the_exact_estimator(images: ImageSet) -> None:
    """Reference and losses use the same images and noise, so they agree up to rounding."""
    spec = tiny_spec(images, sigma=0.7)
    exact = EmpiricalBayes(images.train[:100], 0.7, levels=images.levels)
    rows = {r["split"]: r for r in get_experiment("losses").run(exact, spec, context_of(images)).scalars["rows"]}
    found = reference(images, 0.7, EVALUATION, FP64, train_images=100)
    assert (found.floor, found.floor_stderr) == pytest.approx((rows["train"]["loss"], rows["train"]["stderr"]))
    assert (found.nonparametric, found.nonparametric_stderr) == pytest.approx((rows["test"]["loss"], rows["test"]["stderr"]))
    mean = (images.train[:100].double() / 16).mean(0)
    squares = [(x.double() / 16 - mean).square().sum().item() for x in images.test]
    every = reference(images, 0.7, dataclasses.replace(EVALUATION, test_images=0), FP64, train_images=100)
    assert every.mean_predictor == pytest.approx(sum(squares) / len(squares))
    assert found.floor < found.nonparametric < 2 * found.mean_predictor


def test_denoise_rows_sample_a_gaussian_by_one_chain(images: ImageSet) -> None:
    """The chain walks by Langevin (Eq. 19) from uniform noise. Each jump halves the distance to the mean."""
    samples = run("denoise_rows", Gaussian(mean=0.3, variance=2.0), images, scale=1.0).arrays["samples"]
    assert samples.shape == (ROWS, *images.shape)
    spread = 2 * (samples[9:] - 0.3)  # undo the halving: the chain is N(0.3, 2) once it has forgotten its start
    assert spread.std() == pytest.approx(2**0.5, rel=0.35)
    assert not torch.equal(samples[-1], samples[-2])
