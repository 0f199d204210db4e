"""Fixtures of the experiments' tests."""

import dataclasses

import pytest

from uvb.data import ImageSet
from uvb.experiments import _labels, mixing


@pytest.fixture(autouse=True)
def short_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_labels, "STEPS", 40)


@pytest.fixture
def short_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mixing` tries one setting of each sampler."""
    for grid in (mixing.GRID, mixing.SHORT):
        for sampler, settings in grid.items():
            monkeypatch.setitem(grid, sampler, settings[:1])


@pytest.fixture(scope="module")
def images(digits: ImageSet) -> ImageSet:
    """A few digits."""
    return dataclasses.replace(
        digits, train=digits.train[:200], train_labels=digits.train_labels[:200],
        test=digits.test[:60], test_labels=digits.test_labels[:60],
    )  # fmt: skip
