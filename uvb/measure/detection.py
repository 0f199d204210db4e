"""How well a score tells images of two sets apart: the area under the ROC curve, with its error."""

import math

import torch
from torch import Tensor

from uvb.measure.losses import Mean


def auroc(inside: Tensor, outside: Tensor) -> Mean:
    """P(outside > inside) + P(equal)/2 for scores (n,) and (m,), with DeLong's standard error (1988).

    At 1 every score outside is above every score inside. At 1/2 the scores say nothing, and below 1/2 they mislead. The error
    is nan if a set has only one score.
    """
    of_inside = 1 - _placements(inside, outside)  # (n,): the share of `outside` above each, ties halved
    of_outside = _placements(outside, inside)  # (m,)
    if min(len(inside), len(outside)) < 2:
        return Mean(float(of_outside.mean()), math.nan)
    variance = sum(float(part.var()) / len(part) for part in (of_inside, of_outside))
    return Mean(float(of_outside.mean()), math.sqrt(variance))


def _placements(scores: Tensor, others: Tensor) -> Tensor:
    """The share of `others` below each score, ties counted as a half: (n,) float64."""
    ordered, scores = others.double().sort().values, scores.double()
    below, upto = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
    return (below + upto).double() / (2 * len(ordered))
