"""Known losses on a Gaussian mixture: the loss of the best estimator, and the loss of always answering the mean."""

import math
from typing import NamedTuple

import torch

from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.noise import generator


class BayesLoss(NamedTuple):
    """E‖X - x̂(Y)‖², summed over pixels, and its standard error (0 where the value is exact)."""

    value: float
    standard_error: float


def mean_predictor_loss(mixture: GaussianMixture) -> float:
    """E‖X - E X‖²."""
    weights, means = mixture.weights[:, None], mixture._means()
    center = (weights * means).sum(0)
    return float((weights * (mixture._variances() + (means - center).square())).sum())


def bayes_loss(mixture: GaussianMixture, sigma: float, *, draws: int = 20_000, seed: int = 0) -> BayesLoss:
    """The least loss that any estimator can have, E‖X - E[X|Y]‖² = E tr Cov[X|Y].

    A mixture of one component has a closed form. Otherwise average the trace over `draws` samples of Y. The trace has a closed
    form for each y, and varies far less than ‖x - x̂(y)‖².
    """
    variances = mixture._variances()
    within = (variances * sigma**2 / (variances + sigma**2)).sum(1)  # (K,): tr Cov[X | Y, k]
    if len(mixture.means) == 1:
        return BayesLoss(float(within[0]), 0.0)
    g = generator(seed, "bayes_loss")
    traces = []
    for start in range(0, draws, 1000):
        x = mixture.sample(min(1000, draws - start), g)
        y = x + sigma * torch.randn(x.shape, generator=g).to(x)
        share = mixture._log_joint(y, sigma).softmax(1)  # (B, K)
        means = mixture._component_means(y, sigma)  # (B, K, d)
        spread = (means - (share[:, :, None] * means).sum(1, keepdim=True)).square().sum(2)  # (B, K)
        traces.append((share * (within + spread)).sum(1))
    trace = torch.cat(traces)
    return BayesLoss(float(trace.mean()), float(trace.std()) / math.sqrt(draws))
