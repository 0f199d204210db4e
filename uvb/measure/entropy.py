"""De Bruijn's identity: compute from denoising losses how the entropy of Y grows with the noise."""

from collections.abc import Sequence

import numpy as np

PARTS = 40  # the trapezoid rule divides each interval into this many parts


def entropy_growth(sigmas: Sequence[float], losses: Sequence[float], dimension: int) -> list[float]:
    """h(Y at sigmas[i + 1]) - h(Y at sigmas[i]) in nats, from E‖x - x̂‖² at each noise level.

    dh/ds = E‖∇f‖²/2 = (d/s - L(s)/s²)/2, where s = σ² and L is the loss (Stam 1959; Guo, Shamai and Verdú 2005). If the
    estimator belongs to another density p, the result is the growth of the cross entropy -E log p(y) (Verdú 2010). Between two
    noise levels log L is interpolated by a cubic in log s. At each level the cubic has the slope of the parabola through the
    level and its neighbours.

    Args:
        sigmas: noise levels, ascending.
        losses: E‖x - x̂(y)‖², summed over the d = `dimension` pixels, each above 0.
    """
    if len(sigmas) < 2:
        return []
    at, logs = 2 * np.log(sigmas), np.log(losses)
    slopes = np.gradient(logs, at, edge_order=2 if len(at) > 2 else 1)
    width, t = np.diff(at), np.linspace(0, 1, PARTS + 1)[:, None]  # (intervals,), (points, 1)
    log_loss = (  # cubic Hermite interpolation
        (1 + 2 * t) * (1 - t) ** 2 * logs[:-1] + t**2 * (3 - 2 * t) * logs[1:]
        + width * t * (1 - t) * ((1 - t) * slopes[:-1] - t * slopes[1:])
    )  # fmt: skip
    ratio = np.exp(log_loss - at[:-1] - t * width)  # the integrand over log s: L ds/s² = (L/s) d(log s)
    integral = (ratio.sum(0) - 0.5 * (ratio[0] + ratio[-1])) / PARTS  # (intervals,)
    growth: list[float] = (0.5 * width * (dimension - integral)).tolist()
    return growth
