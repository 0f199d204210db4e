"""The walk-jump experiment: its counts, its step sizes, and chains that diverge or never move."""

import dataclasses

import pytest
import torch

from tests.support.builders import tiny_spec
from tests.uvb.experiments.helpers import Gaussian, Hill, context_of, run
from uvb.data import ImageSet
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.experiments import _labels, get_experiment
from uvb.measure.classifier import classify
from uvb.measure.mixing import chain_statistics
from uvb.sampling.walk_jump import walk_at


@pytest.mark.parametrize("name", ["walk_jump", "walk_jump_baoab"])
def test_walk_jump_counts_agree_with_its_labels(images: ImageSet, name: str) -> None:
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


def test_walk_jump_takes_a_step_of_a_fifth_of_sigma(images: ImageSet) -> None:
    for sigma in (1.0, 0.5):
        spec, model = tiny_spec(images, sigma=sigma), EmpiricalBayes(images.train, sigma, levels=images.levels)
        result = get_experiment("walk_jump").run(model, spec, context_of(images))
        assert result.scalars["delta"] == pytest.approx(0.2 * sigma)


@pytest.mark.parametrize(("mean", "variance", "edge", "late"), [(-2.0, 0.1, 0.5, False), (0.3, 2.0, 3.6, True)])
def test_walk_jump_names_diverged_chains_and_leaves_them_out(
    images: ImageSet, mean: float, variance: float, edge: float, late: bool
) -> None:
    """`Hill` throws out chains that start beyond its edge or reach it later. From then on their label is -1.

    The other chains are measured.
    """
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


def test_walk_jump_gives_an_acceptance_only_for_metropolis_samplers(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no proposal is accepted, a message says so."""
    assert run("walk_jump", Gaussian(), images).scalars["acceptance"] is None
    sound = run("walk_jump_mala", Gaussian(), images).scalars
    assert 0.2 < sound["acceptance"] < 1
    assert sound["message"] == ""
    monkeypatch.setattr("uvb.experiments.walk_jump.walk_at", lambda sigma, **changes: walk_at(sigma, **changes, delta=50.0))
    stuck = run("walk_jump_mala", Gaussian(), images).scalars
    assert stuck["acceptance"] == 0
    assert "no proposal was accepted" in stuck["message"]
    assert stuck["variants"]["jump"]["ess_per_step"] is None


def test_walk_jump_whose_chains_all_diverge_is_a_result(images: ImageSet) -> None:
    model = Hill()
    model.edge = -1.0
    result = run("walk_jump", model, images)
    assert "chains diverged" in result.scalars["message"]
    assert len(result.scalars["diverged"]) == result.scalars["chains"]
    assert result.scalars["variants"] == {}


def test_walk_jump_and_nebula_run_without_labels(images: ImageSet) -> None:
    bare = dataclasses.replace(images, train_labels=None, test_labels=None)
    walk, flow = run("walk_jump", Gaussian(), bare), run("nebula", Gaussian(), bare)
    assert walk.scalars["classifier_accuracy"] is None
    assert walk.scalars["variants"]["jump"]["transition"] is None
    assert walk.scalars["variants"]["jump"]["iat"] > 0
    assert "labels" not in walk.arrays
    assert flow.scalars["labels_after"] is None
