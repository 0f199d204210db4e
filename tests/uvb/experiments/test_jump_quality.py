"""The quality of jumps, on energies with known jumps."""

import dataclasses
import math

import pytest

from tests.support.builders import tiny_spec
from tests.uvb.experiments.helpers import Gaussian, Hill, context_of, run
from uvb.data import ImageSet
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.experiments import get_experiment


def test_jump_quality_is_better_for_the_exact_energy_than_for_a_collapsed_one(images: ImageSet) -> None:
    """The exact energy's jumps are near the data. A Gaussian energy denoises every image to one grey, far from the data."""
    exact = run("jump_quality", EmpiricalBayes(images.train[:100], 0.3, levels=images.levels), images, scale=0.3).scalars
    grey = run("jump_quality", Gaussian(mean=0.5, variance=1.0), images, scale=0.3).scalars
    rows, collapsed = ({row["images"]: row for row in values["rows"]} for values in (exact, grey))
    assert list(rows) == ["jumps", "second jumps", "test images", "denoised", "denoised twice"]
    assert rows["test images"] == collapsed["test images"], "no model touches the test images"
    assert rows["test images"]["frechet"] < collapsed["jumps"]["frechet"]
    assert rows["jumps"]["frechet"] < 0.5 * collapsed["jumps"]["frechet"]
    assert collapsed["jumps"]["coverage"] < rows["jumps"]["coverage"]
    assert rows["jumps"]["frechet_stderr"] > 0
    assert exact["message"] == ""


def test_jump_quality_without_labels_or_sound_chains_is_a_message(images: ImageSet) -> None:
    bare = dataclasses.replace(images, train_labels=None, test_labels=None)
    assert "no labels" in run("jump_quality", Gaussian(), bare).scalars["message"]
    lost = Hill()
    lost.edge = -1.0  # every chain begins beyond this edge and diverges
    values = run("jump_quality", lost, images).scalars
    assert "chains diverged" in values["message"]
    assert values["rows"] == []
    assert values["sigma"] == pytest.approx(1.0)


def test_jump_quality_of_few_test_images_has_no_error(images: ImageSet) -> None:
    """A group has as many images as a chain has jumps, here 9. Eleven images make one group, and one group has no error."""
    few = dataclasses.replace(images, test=images.test[:11], test_labels=images.test_labels[:11])
    values = get_experiment("jump_quality").run(Gaussian(), tiny_spec(few), context_of(few)).scalars
    errors = {row["images"]: row["frechet_stderr"] for row in values["rows"]}
    assert errors["jumps"] > 0
    assert math.isnan(errors["test images"])
    assert "too few test images" in values["message"]
