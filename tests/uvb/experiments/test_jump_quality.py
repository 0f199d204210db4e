"""The quality of jumps, of energies that jump to known places."""

import dataclasses

import pytest

from tests.uvb.experiments.helpers import Gaussian, Hill, run
from uvb.data import ImageSet
from uvb.exact.empirical_bayes import EmpiricalBayes


def test_quality_of_jumps_lies_between_floor_and_collapse(images: ImageSet) -> None:
    """The exact energy's jumps are near the data; those of a Gaussian that denoises to one grey are far from it."""
    exact = run("jump_quality", EmpiricalBayes(images.train[:100], 0.3, levels=images.levels), images, scale=0.3).scalars
    grey = run("jump_quality", Gaussian(mean=0.5, variance=1.0), images, scale=0.3).scalars
    rows, collapsed = ({row["images"]: row for row in values["rows"]} for values in (exact, grey))
    assert list(rows) == ["jumps", "second jumps", "test images", "denoised", "denoised twice"]
    assert rows["test images"] == collapsed["test images"], "the floor is the same for every model"
    assert rows["test images"]["frechet"] < collapsed["jumps"]["frechet"]
    assert rows["jumps"]["frechet"] < 0.5 * collapsed["jumps"]["frechet"]
    assert collapsed["jumps"]["coverage"] < rows["jumps"]["coverage"]
    assert rows["jumps"]["frechet_stderr"] > 0
    assert exact["message"] == ""


def test_quality_without_labels_or_sound_chains_is_a_message(images: ImageSet) -> None:
    bare = dataclasses.replace(images, train_labels=None, test_labels=None)
    assert "no labels" in run("jump_quality", Gaussian(), bare).scalars["message"]
    lost = Hill()
    lost.edge = -1.0
    values = run("jump_quality", lost, images).scalars
    assert "chains diverged" in values["message"]
    assert values["rows"] == []
    assert values["sigma"] == pytest.approx(1.0)
