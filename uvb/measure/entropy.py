"""De Bruijn's identity: how the entropy of Y grows with the noise, from denoising losses alone."""

import math
from collections.abc import Sequence

PARTS = 40  # of each interval, for the trapezoid rule


def entropy_growth(sigmas: Sequence[float], losses: Sequence[float], dimension: int) -> list[float]:
    """h(Y at sigmas[i + 1]) - h(Y at sigmas[i]) in nats, from E‖x - x̂‖² at each noise level.

    dh/ds = E‖∇f‖²/2 = (d/s - L(s)/s²)/2 with s = σ² (Stam 1959; Guo, Shamai and Verdú 2005). With the loss of any
    estimator that belongs to a density seen through noise, this is the growth of the cross entropy -E log p(y) (Verdú 2010).
    Between the levels log L is a cubic in log s through them, with the slopes of parabolas.

    Args:
        sigmas: noise levels, ascending.
        losses: E‖x - x̂(y)‖², summed over the d = `dimension` pixels, each above 0.
    """
    at, logs = [2 * math.log(sigma) for sigma in sigmas], [math.log(loss) for loss in losses]
    slopes, grown = _slopes(at, logs), []
    for i in range(len(at) - 1):
        width, inside = at[i + 1] - at[i], []
        for k in range(PARTS + 1):
            t = k / PARTS
            log_loss = (
                (1 + 2 * t) * (1 - t) ** 2 * logs[i] + t**2 * (3 - 2 * t) * logs[i + 1]
                + width * t * (1 - t) * ((1 - t) * slopes[i] - t * slopes[i + 1])
            )  # fmt: skip
            inside.append(math.exp(log_loss - at[i] - t * width))  # L/s, since ds/s² is d(log s)/s
        integral = width / PARTS * (sum(inside) - 0.5 * (inside[0] + inside[-1]))
        grown.append(0.5 * (dimension * width - integral))
    return grown


def _slopes(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """The derivative at each point of the parabola through it and its neighbours; at the ends, of the nearest parabola."""
    steps = [(y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(len(x) - 1)]
    if len(steps) < 2:
        return steps * len(x)
    found = []
    for i in range(len(x)):
        j = min(max(i, 1), len(x) - 2)  # the middle of the parabola
        curvature = (steps[j] - steps[j - 1]) / (x[j + 1] - x[j - 1])
        found.append(steps[j - 1] + curvature * (2 * x[i] - x[j] - x[j - 1]))
    return found
