"""How well a score separates images of two sets: the area under the ROC curve, with its standard error."""

import math

import torch
from torch import Tensor

from uvb.measure.losses import Mean


def auroc(inside: Tensor, outside: Tensor) -> Mean:
    """P(outside > inside) + P(equal)/2 for scores (n,) and (m,), with DeLong's standard error (1988).

    The result is 1 if every score outside is above every score inside, and 1/2 if the scores do not separate the sets. Below
    1/2 the scores outside tend to be lower. The standard error is nan if a set has only one score.
    """
    of_inside = 1 - _placements(inside, outside)  # (n,): the share of `outside` above each score; ties count as a half
    of_outside = _placements(outside, inside)  # (m,)
    if min(len(inside), len(outside)) < 2:
        return Mean(float(of_outside.mean()), math.nan)
    variance = sum(float(part.var()) / len(part) for part in (of_inside, of_outside))
    return Mean(float(of_outside.mean()), math.sqrt(variance))


def _placements(scores: Tensor, others: Tensor) -> Tensor:
    """The share of `others` below each score, where ties count as a half: (n,) float64."""
    ordered, scores = others.double().sort().values, scores.double()
    below, upto = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
    return (below + upto).double() / (2 * len(ordered))
