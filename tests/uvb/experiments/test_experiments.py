"""The paper's experiments, on energies whose answers are known, and against what tables and figures expect of them."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.figures import Study, drawings
from pipelines.reporting.tables import build_tables
from tests.support import fake_study
from tests.support.builders import tiny_spec
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.exact.reference import reference
from uvb.experiments import Context, Result, _labels, experiment_names, get_experiment
from uvb.measure.classifier import classify
from uvb.measure.convexity import smallest_monotonicity
from uvb.measure.losses import EvalConfig
from uvb.measure.mixing import chain_statistics
from uvb.models import build_model, get_model, model_names
from uvb.models.base import Energy, Estimator, LatentEnergy
from uvb.plan import Plan
from uvb.sampling import sampler_names
from uvb.sampling.nebula import gradient_flow
from uvb.sampling.walk_jump import walk_at
from uvb.spec import DataRef

FP64 = Plan(precision="fp64")
EVALUATION = EvalConfig(train_images=60, test_images=50, draws=2)


@pytest.fixture(autouse=True)
def short_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_labels, "STEPS", 40)


@pytest.fixture(scope="module")
def images(digits: ImageSet) -> ImageSet:
    """A few digits."""
    return dataclasses.replace(digits.subset(200), test=digits.test[:60], test_labels=digits.test_labels[:60])


def context_of(images: ImageSet, plan: Plan = FP64, scale: float = 0.1, seed: int = 0) -> Context:
    return Context(images, plan, EVALUATION, seed=seed, scale=scale)


def run(name: str, model: torch.nn.Module, images: ImageSet, **changes: object) -> Result:
    """The experiment on a model at its σ; whatever it returns must be storable: JSON without NaN, finite arrays."""
    result = get_experiment(name).run(model, tiny_spec(images, sigma=float(model.sigma)), context_of(images, **changes))
    json.dumps(result.scalars, allow_nan=False)
    for key, array in result.arrays.items():
        assert bool(array.isfinite().all()), key
    return result


class Gaussian(Energy):
    """f(y) = ‖y - m‖² / 2s², the energy of N(m, s² I); x̂(y) = y - (σ²/s²)(y - m)."""

    def __init__(self, mean: float = 0.3, variance: float = 2.0, sigma: float = 1.0) -> None:
        super().__init__(sigma)
        self.mean, self.variance = mean, variance

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return (y - self.mean).square().flatten(1).sum(1) / (2 * self.variance)


class Hill(Gaussian):
    """A Gaussian energy, but a chain whose first pixel is above `edge` is thrown out to where there is no number."""

    edge = 0.5

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return super().energy(y, eps) - 1e12 * (y[:, 0, 0, 0] - self.edge).clamp(min=0) ** 2


class Shaken(LatentEnergy):
    """x̂(y) = y + 0.1 ε₀, so that what one ε does is known."""

    noise_dim = 3

    def __init__(self) -> None:
        super().__init__(sigma=1.0)

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        return y + 0.1 * eps[:, :1, None, None]


class Identity(Estimator):
    """x̂(y) = y."""

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        return y


# --- what every experiment must do


def test_the_papers_experiments_are_known() -> None:
    default = experiment_names(default_only=True)
    figures = {"denoise_rows", "walk_jump", "energies", "nebula", "decoder_samples", "one_z"}
    assert {"losses", "internals", *figures} <= set(default)
    assert {"convexity", "score_error", "walk_jump_baoab"} <= set(experiment_names()) - set(default)
    with pytest.raises(UserError, match="walk_jump"):
        get_experiment("nonsense")


@pytest.mark.parametrize("model", sorted(model_names()))
def test_every_experiment_runs_on_every_model_it_applies_to(images: ImageSet, model: str) -> None:
    """And only on those."""
    built = build_model(tiny_spec(images, model)).double()
    ran = []
    for name in experiment_names():
        experiment = get_experiment(name)
        if not experiment.applies(type(built), images.name):
            assert experiment.data == "mixture" or not isinstance(built, experiment.needs)
            continue
        result = experiment.run(built, tiny_spec(images, model), context_of(images, scale=0.01))
        json.dumps(result.scalars, allow_nan=False)
        assert all(bool(array.isfinite().all()) for array in result.arrays.values()), name
        ran.append(name)
    assert {"losses", "denoise_rows", "score_error"} <= set(ran)
    assert ("one_z" in ran) == isinstance(built, LatentEnergy)
    assert ("walk_jump" in ran) == isinstance(built, Energy)


def test_experiments_are_keyed_by_their_seed(images: ImageSet) -> None:
    """The same seed twice gives the same bits; another seed other images, noise, or chains."""
    spec = tiny_spec(images)
    model = build_model(spec).double()
    for name in experiment_names():
        if get_experiment(name).applies(type(model), images.name):
            one, two, other = (get_experiment(name).run(model, spec, context_of(images, scale=0.01, seed=s)) for s in (0, 0, 1))
            assert one.scalars == two.scalars, name
            assert all(torch.equal(one.arrays[k], two.arrays[k]) for k in one.arrays), name
            if name not in ("losses", "internals", "score_error", "energies"):  # those go by the evaluation's seed
                same_scalars = one.scalars == other.scalars
                assert not (same_scalars and all(torch.equal(one.arrays[k], other.arrays[k]) for k in one.arrays)), name


def test_the_report_shows_what_experiments_return(images: ImageSet, tmp_path: Path) -> None:
    """Both sides of the contract: results as written to a study's files are read into tables and drawn."""
    drawn = {"walk_jump", "nebula", "energies", "decoder_samples", "one_z", "convexity", "denoise_rows"}
    for model in ("uvb", "deen", "vae"):
        spec = tiny_spec(images, model)
        fake_study.write(tmp_path / "models" / spec.spec_id / "spec.json", spec.to_json())
        fake_study.write(tmp_path / "models" / spec.spec_id / "done.json", {"seconds": 1.0})
        built = build_model(spec).double()
        for name in experiment_names():
            if get_experiment(name).applies(type(built), images.name):
                result = get_experiment(name).run(built, spec, context_of(images, scale=0.05))
                arrays = {k.replace("/", "__"): v.float().numpy() for k, v in result.arrays.items()}
                fake_study.result(tmp_path, name, spec.spec_id, result.scalars, **arrays)
    tables = build_tables(tmp_path)
    others = [f"_{name}" for name in sampler_names() if name != "langevin"]
    assert set(tables["sampling"]["variant"]) == {f"{jump}{of}" for jump in ("jump", "second_jump") for of in ["", *others]}
    study = Study(StudyFiles(tmp_path), tables)
    pictures = {d.needs: [p.name for p in d.pictures(study)] for d in drawings() if d.needs in drawn}
    assert all(pictures[name] for name in drawn)
    names = "\n".join(name for group in pictures.values() for name in group)
    assert all(part in names for part in ("jumps_", "jumps2_", "classes_", "transitions_", "_baoab", "decoder_rows_"))


def test_the_mixture_is_measured_only_on_the_mixture(images: ImageSet) -> None:
    experiment = get_experiment("mixture")
    assert experiment.applies(Gaussian, "mixture")
    assert not experiment.applies(Gaussian, "digits")
    with pytest.raises(UserError, match="mixture"):
        run("mixture", Gaussian(), images)


# --- walk-jump sampling


@pytest.mark.parametrize("name", ["walk_jump", "walk_jump_baoab"])
def test_walk_jump_counts_are_those_of_its_labels(images: ImageSet, name: str) -> None:
    result = run(name, EmpiricalBayes(images.train, 1.0, levels=images.levels), images, scale=0.3)
    values, arrays = result.scalars, result.arrays
    classifier = _labels.labeller(context_of(images))
    assert values["diverged"] == []
    assert (values["steps"], values["steps_per_jump"], values["chains"]) == (300, 10, 2)
    assert arrays["jumps"].shape == (30, 1, 8, 8)
    for variant, suffix in (("jump", ""), ("second_jump", "2")):
        labels, measured = arrays[f"labels{suffix}"], values["variants"][variant]
        assert torch.equal(classify(classifier, arrays[f"jumps{suffix}"].float()), labels[:, 0])
        counts = torch.zeros(10, 10, dtype=torch.int64)
        for before, after in zip(labels[:-1].flatten().tolist(), labels[1:].flatten().tolist(), strict=True):
            counts[before, after] += 1
        assert measured["transition"] == counts.tolist()
        assert measured["classes_visited"] == len(set(labels[:, 0].tolist()))
        assert (measured["steps_to_all"] is None) == (measured["classes_visited"] < 10)
        assert measured["iat"] > 0
        assert measured["ess_per_step"] > 0
    again = EmpiricalBayes(images.train, 1.0, levels=images.levels)(arrays["jumps"].double(), torch.empty(30, 0))
    torch.testing.assert_close(arrays["jumps2"], again.float(), rtol=1e-4, atol=1e-4)


def test_the_step_grows_with_sigma(images: ImageSet) -> None:
    """δ = 0.2 at the paper's σ = 1, and the same in units of σ elsewhere."""
    for sigma in (1.0, 0.5):
        spec, model = tiny_spec(images, sigma=sigma), EmpiricalBayes(images.train, sigma, levels=images.levels)
        result = get_experiment("walk_jump").run(model, spec, context_of(images))
        assert result.scalars["delta"] == pytest.approx(0.2 * sigma)


@pytest.mark.parametrize(("mean", "variance", "edge", "late"), [(-2.0, 0.1, 0.5, False), (0.3, 2.0, 3.6, True)])
def test_a_chain_that_diverges_is_told_and_left_out(
    images: ImageSet, mean: float, variance: float, edge: float, late: bool
) -> None:
    """Hill throws out those that start beyond its edge, or come there later; they are labelled -1. The others are measured."""
    model = Hill(mean, variance)
    model.edge = edge
    result = run("walk_jump", model, images, scale=0.6)
    stopped = {row["chain"]: row["step"] for row in result.scalars["diverged"]}
    assert any(step > 30 for step in stopped.values()) == late
    labels = result.arrays["labels"]
    for chain in range(labels.shape[1]):
        steps = 10 * torch.arange(1, len(labels) + 1)
        expected = steps < stopped.get(chain, 10**9)
        assert torch.equal(labels[:, chain] >= 0, expected)
    sound = [chain for chain in range(labels.shape[1]) if chain not in stopped]
    energy = result.arrays["energy"][:, sound]
    assert 0 < len(sound) < labels.shape[1]
    assert result.arrays["scores"].shape == result.arrays["scores2"].shape == (len(labels), len(sound))
    assert result.scalars["energy"]["iat"] == pytest.approx(chain_statistics(energy, 10).integrated_autocorrelation_time)


def test_acceptance_is_told_of_samplers_with_a_test(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a step size that accepts nothing is told in a line."""
    assert run("walk_jump", Gaussian(), images).scalars["acceptance"] is None
    sound = run("walk_jump_mala", Gaussian(), images).scalars
    assert 0.2 < sound["acceptance"] < 1
    assert sound["message"] == ""
    monkeypatch.setattr("uvb.experiments.walk_jump.walk_at", lambda sigma, **changes: walk_at(sigma, **changes, delta=50.0))
    stuck = run("walk_jump_mala", Gaussian(), images).scalars
    assert stuck["acceptance"] == 0
    assert "no proposal was accepted" in stuck["message"]
    assert stuck["variants"]["jump"]["ess_per_step"] is None


def test_all_chains_diverging_at_once_is_a_result(images: ImageSet) -> None:
    model = Hill()
    model.edge = -1.0
    result = run("walk_jump", model, images)
    assert "chains diverged" in result.scalars["message"]
    assert len(result.scalars["diverged"]) == result.scalars["chains"]
    assert result.scalars["variants"] == {}


def test_images_without_labels_are_sampled_all_the_same(images: ImageSet) -> None:
    bare = dataclasses.replace(images, train_labels=None, test_labels=None)
    walk, flow = run("walk_jump", Gaussian(), bare), run("nebula", Gaussian(), bare)
    assert walk.scalars["classifier_accuracy"] is None
    assert walk.scalars["variants"]["jump"]["transition"] is None
    assert walk.scalars["variants"]["jump"]["iat"] > 0
    assert "labels" not in walk.arrays
    assert flow.scalars["labels_after"] is None


# --- energies, attractors, convexity


def test_rows_jump_twice(images: ImageSet) -> None:
    """x̂(y) and x̂(x̂(y)) of a Gaussian: each step halves the distance to its mean (1 - σ²/s²). Both by the same ε."""
    arrays = run("denoise_rows", Gaussian(mean=0.3, variance=2.0), images).arrays
    torch.testing.assert_close(arrays["xhat"] - 0.3, (arrays["noisy"] - 0.3) / 2)
    torch.testing.assert_close(arrays["xhat2"] - 0.3, (arrays["noisy"] - 0.3) / 4)
    shaken = run("denoise_rows", Shaken(), images).arrays
    once = shaken["xhat"] - shaken["noisy"]
    assert once.flatten(1).std(1).max() < 1e-6 < once[:, 0, 0, 0].std()
    torch.testing.assert_close(shaken["xhat2"] - shaken["xhat"], once)


def test_energies_of_a_gaussian(images: ImageSet) -> None:
    """f(x) by hand; and with σ² = s² the estimate x̂(y) is the mean, whose energy is 0."""
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
    assert values["labels_before"] == arrays["classes"][0].tolist()  # of x̂(y); the flow's first point is y itself
    assert len(arrays["classes"]) == len(arrays["energy"])


def test_the_flow_of_the_nebula_has_units_of_sigma_squared(images: ImageSet) -> None:
    """t/σ², t the sum of the steps; with an energy of any variance the flow of y - m is exp(-t/s²), near enough."""
    model = Gaussian(mean=0.3, variance=1.0, sigma=0.5)
    result = run("nebula", model, images, scale=1.0)
    arrays, values = result.arrays, result.scalars
    *_, end = gradient_flow(model, arrays["noisy"], arrays["noisy"].new_empty(len(arrays["noisy"]), 0), max_steps=5000)
    assert torch.equal(end.y, arrays["attractor"])
    assert values["flow_time"] == pytest.approx((end.time / 0.25).tolist())
    left = ((arrays["attractor"] - 0.3).flatten(1).norm(dim=1) / (arrays["noisy"] - 0.3).flatten(1).norm(dim=1)).log()
    assert (-left / 0.25).tolist() == pytest.approx(values["flow_time"], rel=0.2)  # Euler's steps are up to σ² long
    torch.testing.assert_close(arrays["step1"] - 0.3, (arrays["noisy"] - 0.3) * (1 - 0.25))


def test_half_the_pairs_of_convexity_lie_along_differences_of_images(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def spy(energy: Energy, centers: Tensor, directions: Tensor, *rest: object) -> object:
        seen.append(directions)
        return smallest_monotonicity(energy, centers, directions, *rest)

    monkeypatch.setattr("uvb.experiments.convexity.smallest_monotonicity", spy)
    run("convexity", Gaussian(), images, scale=1.0)
    x = images.test.double().flatten(1) / images.levels
    differences = F.normalize(x[:, None] - x[None], dim=2).reshape(-1, 64)  # of every two test images
    found = (F.normalize(seen[0].flatten(1), dim=1) @ differences.T).max(1).values  # 1: along one of them
    torch.testing.assert_close(found[0::2], torch.ones_like(found[0::2]))
    assert found[1::2].max() < 0.9
    assert torch.equal(seen[0], seen[1])  # the model and the exact energy are asked about the same pairs


def test_accuracies_are_the_shares_named_right(images: ImageSet) -> None:
    """Of an estimator that gives back what it is given: jumps are named as noisy images are."""
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


# --- decoder and latent


def test_one_z_against_many(images: ImageSet) -> None:
    result = run("one_z", Shaken(), images, scale=1.0)
    one, mean = result.arrays["one"], result.arrays["mean"]
    shake = (one - mean)[:, 0, 0, 0]
    assert ((one - mean) - shake.reshape(-1, 1, 1, 1)).abs().max() < 1e-5  # one number an image
    assert result.scalars["draws"] == 1000
    assert result.scalars["max_difference"] == pytest.approx(shake.abs().max().item())
    rows = run("denoise_rows", Shaken(), images).arrays
    assert torch.equal(rows["xhat"], one)  # Figure 2's own images, noise and z
    # The mean of 1,000 is within 5 standard errors of ε's mean, 0.
    assert (mean - rows["noisy"]).abs().max() < 0.1 * 5 / 1000**0.5


def test_decoder_rows_belong_to_models_trained_by_an_elbo(images: ImageSet) -> None:
    for name in ("uvb", "vae", "sigma_vae"):
        spec = tiny_spec(images, name)
        model = build_model(spec).double()
        result = get_experiment("decoder_samples").run(model, spec, context_of(images))
        assert result.arrays["samples"].shape == (48, 1, 8, 8)
        assert ("recon" in result.arrays) == (get_model(name).objective != "denoise")


# --- exact answers


def test_the_exact_estimator_has_no_score_error(images: ImageSet) -> None:
    exact = run("score_error", EmpiricalBayes(images.train[:100], 1.0, levels=images.levels), images, scale=1.0)
    assert all(row["error"] < 1e-20 for row in exact.scalars["rows"])
    gaussian = run("score_error", Gaussian(), images, scale=1.0)
    assert all(row["error"] > 1 for row in gaussian.scalars["rows"])


def test_score_error_is_in_units_of_the_score(images: ImageSet) -> None:
    """‖x̂ - x̂*‖² = σ⁴ ‖score - score*‖², as x̂(y) = y + σ² score(y) (Eq. 2): here every pixel is 0.1 off."""

    class Off(EmpiricalBayes):
        def forward(self, y: Tensor, eps: Tensor) -> Tensor:
            return super().forward(y, eps) + 0.1

    rows = run("score_error", Off(images.train[:100], 0.5, levels=images.levels), images, scale=1.0).scalars["rows"]
    for row in (row for row in rows if row["estimator"] == "energy"):
        assert row["error"] == pytest.approx(64 * 0.1**2)
        assert row["score_error"] == pytest.approx(64 * 0.1**2 / 0.5**4)


def test_score_error_on_training_images_is_the_excess_over_the_floor(digits: ImageSet) -> None:
    """E‖x - x̂‖² - floor = E‖x̂ - x̂_exact‖²: here by two different sums, equal within their error."""
    context = Context(digits, FP64, EvalConfig(draws=1), scale=1.0)
    spec = tiny_spec(digits, data=DataRef("digits", digits.checksum, digits.shape, len(digits.train)))
    model = Gaussian(mean=0.3, variance=1.2)
    error = next(r for r in get_experiment("score_error").run(model, spec, context).scalars["rows"] if r["split"] == "train")
    floor = reference(digits, 1.0, EvalConfig(draws=1), FP64)
    loss = next(r for r in get_experiment("losses").run(model, spec, context).scalars["rows"] if r["split"] == "train")
    assert loss["loss"] - floor.floor == pytest.approx(error["error"], abs=5 * (loss["stderr"] + floor.floor_stderr))
    assert error["error"] > 20 * (loss["stderr"] + floor.floor_stderr)  # or the line above would say little


def test_references_are_the_losses_of_the_exact_estimator(images: ImageSet) -> None:
    """Same images, same noise: to rounding what the experiment `losses` says of that estimator."""
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
