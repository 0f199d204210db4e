"""AUROC equals its definition, and its error equals the spread of repeated draws."""

import math

import pytest
import torch

from uvb.measure.detection import auroc
from uvb.noise import generator


def test_auroc_counts_pairs() -> None:
    """There are six pairs. 3 > 1, 3 > 2 and 2 > 1 count 1, and 2 = 2 counts ½. The pairs of 0 count 0."""
    found = auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0, 0.0]))
    assert found.value == pytest.approx(3.5 / 6)
    # DeLong's error needs, for each score, the mean count of its pairs. The first set has 2/3 for 1, and 1/2 for 2.
    # The second set has 1 for 3, 3/4 for 2, and 0 for 0.
    variance = torch.tensor([2 / 3, 1 / 2]).var() / 2 + torch.tensor([1.0, 0.75, 0.0]).var() / 3
    assert found.stderr == pytest.approx(math.sqrt(variance))


def test_auroc_of_separated_swapped_and_equal_scores() -> None:
    low, high = torch.arange(5.0), torch.arange(10.0, 14.0)
    assert (auroc(low, high).value, auroc(high, low).value, auroc(low, low).value) == (1.0, 0.0, 0.5)
    assert auroc(low, high).stderr == 0
    assert math.isnan(auroc(low[:1], high).stderr)


def test_auroc_of_gaussians_has_the_known_value_and_error() -> None:
    """For N(0, 1) and N(Δ, 1) the AUROC is Φ(Δ/√2). Its error is the spread over repetitions."""
    g, found = generator(0, "scores"), []
    for _ in range(400):
        found.append(auroc(torch.randn(60, generator=g), 1 + torch.randn(90, generator=g)))
    values = torch.tensor([each.value for each in found])
    expected = 0.5 * (1 + math.erf(0.5))
    assert float(values.mean()) == pytest.approx(expected, abs=0.01)
    assert sum(each.stderr for each in found) / 400 == pytest.approx(float(values.std()), rel=0.1)
