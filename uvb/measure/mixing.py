"""How well chains mix: the classes that jumps visit, and effective sample size and split-R̂ of scalar summaries (ArviZ)."""

import math
import warnings
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uvb.errors import UserError

NO_LABEL = -1  # the label of a jump from a chain that has diverged


class MissingArviz(UserError):
    """ArviZ, which computes effective sample sizes, is not installed."""


def classes_visited(labels: Tensor, classes: int) -> Tensor:
    """How many classes each chain has visited so far: labels (T, chains) in [0, classes) or -1 -> (T, chains) int64."""
    _check_labels(labels, classes)
    new = torch.zeros(labels.shape, dtype=torch.int64)  # 1 where a chain is in a class for the first time
    for chain, path in enumerate(labels.cpu().numpy().T):
        seen, times = np.unique(path, return_index=True)
        new[times[seen != NO_LABEL], chain] = 1
    return new.cumsum(0).to(labels.device)


def steps_to_visit_all(labels: Tensor, classes: int, steps_between_jumps: int = 1) -> list[int | None]:
    """The number of steps until each chain has visited every class. None for a chain that misses one.

    With the default `steps_between_jumps` the numbers count jumps.
    """
    complete = classes_visited(labels, classes) == classes  # (T, chains)
    first = complete.int().argmax(0)
    return [(int(t) + 1) * steps_between_jumps if bool(done) else None for t, done in zip(first, complete.any(0), strict=True)]


def transition_counts(labels: Tensor, classes: int) -> Tensor:
    """How often class j follows class i at the next jump of a chain, summed over chains: (classes, classes)."""
    _check_labels(labels, classes)
    here, there = labels[:-1].flatten(), labels[1:].flatten()
    both = (here >= 0) & (there >= 0)
    pairs = here[both] * classes + there[both]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class ChainStatistics:
    """Statistics of a scalar summary over T draws of several chains. They are nan if the summary of a chain never changes.

    Attributes:
        integrated_autocorrelation_time: 1 + 2 Σ_t ρ_t, in draws.
        effective_sample_size: of all chains together, for estimating the mean.
        effective_sample_size_per_step: the effective sample size divided by the steps of all chains.
        split_r_hat: R̂ of the chains' halves. It is near 1 if the chains agree, and nan for fewer than 8 draws.
    """

    integrated_autocorrelation_time: float
    effective_sample_size: float
    effective_sample_size_per_step: float
    split_r_hat: float


def chain_statistics(series: Tensor, steps_between: int = 1) -> ChainStatistics:
    """Statistics of a scalar summary (T, chains), recorded every `steps_between` steps. The caller leaves out diverged chains.

    Raises:
        MissingArviz: ArviZ is not installed.
        UserError: there are fewer than 4 draws, no chain, or values that are not finite.
    """
    if series.dim() != 2 or series.shape[0] < 4 or series.shape[1] < 1:
        raise UserError(f"chain statistics need a (draws, chains) array of at least 4 draws, not {tuple(series.shape)}")
    if not bool(series.isfinite().all()):
        raise UserError("chain statistics need finite values; leave out the chains that diverged")
    arviz = _arviz()
    draws = series.double().cpu().numpy().T  # (chains, T), as ArviZ wants it
    if not np.ptp(draws, axis=1).all():
        return ChainStatistics(math.nan, math.nan, math.nan, math.nan)
    size = float(arviz.ess(draws, method="mean"))
    # ArviZ needs at least two chains for R̂. Each half of a chain counts as a chain, so one chain is enough here.
    half = draws.shape[1] // 2
    halves = np.concatenate([draws[:, :half], draws[:, -half:]])
    r_hat = float(arviz.rhat(halves, method="identity")) if half >= 4 else math.nan
    return ChainStatistics(draws.size / size, size, size / (draws.size * steps_between), r_hat)


def worst_split_r_hat(series: Tensor) -> float:
    """The largest split-R̂ of N quantities (T, N, chains). It is nan if a quantity of a chain never changes."""
    return float(np.max([chain_statistics(each).split_r_hat for each in series.unbind(1)]))  # np.max keeps nan


def principal_component(images: Tensor) -> Tensor:
    """Project images (T, chains, C, H, W) on their first principal component: (T, chains), a summary for `chain_statistics`.

    The sign is fixed: the largest entry of the component is positive. If all images are the same, the projections are 0.
    """
    x = images.flatten(2).flatten(0, 1).double()  # (T * chains, d)
    x = x - x.mean(0)
    if len(x) >= x.shape[1]:
        axis = torch.linalg.eigh(x.T @ x).eigenvectors[:, -1]  # (d,), eigenvalues ascend
    else:  # fewer images than pixels, so x xᵀ is the smaller matrix
        axis = x.T @ torch.linalg.eigh(x @ x.T).eigenvectors[:, -1]
        axis = F.normalize(axis, dim=0)  # stays zero if all images are the same
    axis = axis * axis[axis.abs().argmax()].sign()
    scores: Tensor = x @ axis
    return scores.reshape(images.shape[:2])


def power_law(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Fit log y = a + p log x by least squares. Return e^a, p, and the standard error of p, which is nan for two points."""
    u, v = torch.tensor(x, dtype=torch.float64).log(), torch.tensor(y, dtype=torch.float64).log()
    spread = float((u - u.mean()).square().sum())
    power = float(((u - u.mean()) * (v - v.mean())).sum()) / spread
    rest = v - v.mean() - power * (u - u.mean())
    error = math.sqrt(float(rest.square().sum()) / (len(x) - 2) / spread) if len(x) > 2 else math.nan
    return math.exp(float(v.mean() - power * u.mean())), power, error


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.dim() != 2 or labels.numel() == 0 or bool((labels < NO_LABEL).any()) or bool((labels >= classes).any()):
        raise UserError(
            f"labels must be a non-empty (jumps, chains) array of -1 (no label) to {classes - 1}; got {tuple(labels.shape)}"
        )


def _arviz() -> ModuleType:
    """Import ArviZ without its warning about future versions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import arviz
    except ImportError as error:
        raise MissingArviz("chain statistics need ArviZ, which is not installed; install it: pip install arviz") from error
    return arviz
