"""The cost of mixing (Remark 5): effective sample size per gradient, for several samplers, step sizes and frictions."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.experiments.walk_jump import acceptance, statistics, trouble
from uvb.measure.gaussian_fit import fit_gaussian
from uvb.models.base import Energy, Estimator
from uvb.sampling.walk_jump import WalkJump, walk_at, walk_step
from uvb.spec import RunSpec

CHAINS, GRADIENTS = 16, 800  # every setting gets 800 gradients per chain
WARM_UP = 0.25  # the first quarter of each chain is not counted
AXES = 3  # the walk must mix along this many principal components of the data
CONVERGED = 1.05  # chains count as mixed if split-R̂ is below this

Grid = dict[str, list[dict[str, float]]]  # sampler -> settings, in units of σ; the paper's walk is Langevin with δ = 0.2 σ
GRID: Grid = {
    "langevin": [{"delta": d} for d in (0.2, 0.4, 0.6, 0.8)],
    "mala": [{"delta": d} for d in (0.2, 0.4, 0.6, 0.8)],
    "baoab": [{"delta": d, "friction": f} for f in (0.5, 1.0, 2.0) for d in (0.3, 0.6, 0.9, 1.2)],
    "baoab_metropolis": [{"delta": d, "friction": 1.0} for d in (0.2, 0.4, 0.6)],
    "hmc": [{"delta": d, "leapfrogs": 4} for d in (0.2, 0.4, 0.6)],
}
SHORT: Grid = {  # for the experiment `mixing_over_sigma`, which runs at every noise level
    "langevin": [{"delta": 0.2}, {"delta": 0.6}],
    "mala": [{"delta": 0.4}],
    "baoab": [{"delta": d, "friction": 1.0} for d in (0.6, 0.9)],
}


def mixing(model: Estimator, spec: RunSpec, context: Context, grid: Grid = GRID) -> Result:
    """`rows`: [{sampler, settings, ess_per_gradient, split_rhat, acceptance, message}], settings in units of σ.

    All settings get the same number of gradients and the same starts in Unif[0, 1]^d. The first quarter of each chain is not
    counted. The measured series are y along the data's first three principal components.

    - `ess_per_gradient`: the effective sample size per gradient, the smallest of the three series.
    - `split_rhat`: split-R̂, the largest of the three series.
    - `message`: why there is no `ess_per_gradient`. Chains diverged or never moved, or split-R̂ is not below 1.05.

    `best` is the row with the largest `ess_per_gradient`.
    """
    assert isinstance(model, Energy)
    energy = Frozen(model, context.plan)
    like = torch.zeros(1, device=context.plan.device, dtype=context.plan.dtype)
    axes = fit_gaussian(context.images, spec.sigma, spec.data.train_images, like).axes[:, -AXES:]  # variances ascend
    rows = [_row(energy, config, units, axes, spec, context) for config, units in _settings(spec.sigma, grid)]
    sound = [row for row in rows if row["ess_per_gradient"] is not None]
    best = max(sound, key=lambda row: row["ess_per_gradient"], default=None)
    return Result({"sigma": spec.sigma, "chains": context.shortened(CHAINS, least=2),
                   "gradients": context.shortened(GRADIENTS, least=80), "rows": rows, "best": best})  # fmt: skip


def _gradients(spec: RunSpec, context: Context, grid: Grid) -> float:
    chains = context.shortened(CHAINS, least=2)
    return sum(map(len, grid.values())) * chains * context.shortened(GRADIENTS, least=80)


# `mixing` tries all settings at the largest noise level, `mixing_over_sigma` a few at every level. Neither runs by default.
register_experiment("mixing", needs="energy", where="largest", default=False, gradients=partial(_gradients, grid=GRID))(mixing)
register_experiment("mixing_over_sigma", needs="energy", default=False, gradients=partial(_gradients, grid=SHORT))(
    partial(mixing, grid=SHORT)
)


def _settings(sigma: float, grid: Grid) -> Iterator[tuple[WalkJump, dict[str, float]]]:
    """Yield each walk at σ, and its settings in units of σ. A step size is multiplied by σ, a friction is divided by σ."""
    powers = {"delta": 1, "friction": -1}
    for sampler, each in grid.items():
        for units in each:
            own = {name: value * sigma ** powers.get(name, 0) for name, value in units.items()}
            yield walk_at(sigma, sampler=sampler, delta=own.pop("delta"), settings=own), units


@torch.no_grad()
def _row(
    energy: Energy, config: WalkJump, units: dict[str, float], axes: Tensor, spec: RunSpec, context: Context
) -> dict[str, Any]:
    """Walk with one setting, and measure the walk."""
    steps = max(8, context.shortened(GRADIENTS, least=80) // config.gradients_per_step)
    state, series = context.chains(context.shortened(CHAINS, least=2), spec), []
    for step in range(steps):
        state = walk_step(energy, state, config, context.seed)
        if step >= WARM_UP * steps:
            series.append(state.y.flatten(1) @ axes)  # (chains, AXES)
    accepted = acceptance(config, state)
    row: dict[str, Any] = {"sampler": config.sampler, "settings": units, "acceptance": accepted, "ess_per_gradient": None,
                           "split_rhat": None, "message": trouble(accepted, state.stopped_at.tolist())}  # fmt: skip
    if row["message"]:
        return row
    # `statistics` gets the number of gradients between two positions, not of steps. So its `ess_per_step` is per gradient.
    found = [statistics(one, config.gradients_per_step) for one in torch.stack(series).double().unbind(2)]
    sizes, r_hats = [each["ess_per_step"] for each in found], [each["split_rhat"] for each in found]
    if None in sizes or None in r_hats:
        return row | {"message": "the effective sample size cannot be computed"}
    row["split_rhat"] = worst = max(r for r in r_hats if r is not None)
    if worst < CONVERGED:
        row["ess_per_gradient"] = min(s for s in sizes if s is not None)
    else:
        row["message"] = f"not mixed after {steps * config.gradients_per_step} gradients: split-R̂ is {worst:.2f}"
    return row
