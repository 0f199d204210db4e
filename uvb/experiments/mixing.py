"""What mixing costs: effective samples a gradient evaluation, over samplers, their step sizes and frictions (Remark 5)."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments._draws import shortened
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.experiments.walk_jump import acceptance, statistics, trouble
from uvb.measure.gaussian_fit import fit_gaussian
from uvb.models.base import Energy, Estimator
from uvb.sampling.chains import begin
from uvb.sampling.walk_jump import WalkJump, walk_at, walk_step
from uvb.spec import RunSpec

CHAINS, GRADIENTS = 16, 800  # gradients a chain, for every setting alike
WARM_UP = 0.25  # of a chain, not counted
AXES = 3  # principal components of the data that must mix
CONVERGED = 1.05  # the split-R̂ under which chains count as mixed

# In units of σ: sampler -> settings. The paper's walk is Langevin's 0.2.
GRID: dict[str, list[dict[str, float]]] = {
    "langevin": [{"delta": d} for d in (0.2, 0.4, 0.6, 0.8)],
    "mala": [{"delta": d} for d in (0.2, 0.4, 0.6, 0.8)],
    "baoab": [{"delta": d, "friction": f} for f in (0.5, 1.0, 2.0) for d in (0.3, 0.6, 0.9, 1.2)],
    "baoab_metropolis": [{"delta": d, "friction": 1.0} for d in (0.2, 0.4, 0.6)],
    "hmc": [{"delta": d, "leapfrogs": 4} for d in (0.2, 0.4, 0.6)],
}
SHORT: dict[str, list[dict[str, float]]] = {  # over all noise levels
    "langevin": [{"delta": 0.2}, {"delta": 0.6}],
    "mala": [{"delta": 0.4}],
    "baoab": [{"delta": d, "friction": 1.0} for d in (0.6, 0.9)],
}


def mixing(model: Estimator, spec: RunSpec, context: Context, grid: dict[str, list[dict[str, float]]] = GRID) -> Result:
    """`rows`: [{sampler, settings, ess_per_gradient, split_rhat, acceptance, message}], settings in units of σ.

    Every setting gets as many gradients, from the same starts in Unif[0, 1]^d; the first quarter is not counted. The series
    are y along the data's first three principal components: `ess_per_gradient` is the smallest of the three, a chain's
    effective samples over its gradients, and `split_rhat` the largest. A setting has no `ess_per_gradient`, and a message
    instead, where chains diverged or never moved, or where split-R̂ is not below 1.05. `best` is the row with the most.
    """
    assert isinstance(model, Energy)
    energy = Frozen(model, context.plan)
    like = torch.zeros(1, device=context.plan.device, dtype=context.plan.dtype)
    axes = fit_gaussian(context.images, spec.sigma, spec.data.train_images, like).axes[:, -AXES:]  # variances ascend
    rows = [_row(energy, config, units, axes, spec, context) for config, units in _settings(spec.sigma, grid)]
    sound = [row for row in rows if row["ess_per_gradient"] is not None]
    best = max(sound, key=lambda row: row["ess_per_gradient"], default=None)
    gradients = shortened(GRADIENTS, context, least=80)
    return Result({"sigma": spec.sigma, "chains": shortened(CHAINS, context, least=2), "gradients": gradients,
                   "rows": rows, "best": best})  # fmt: skip


# All settings at the largest noise level, a few at every one; both only when asked for.
register_experiment("mixing", needs="energy", where="largest", default=False)(mixing)
register_experiment("mixing_over_sigma", needs="energy", default=False)(partial(mixing, grid=SHORT))


def _settings(sigma: float, grid: dict[str, list[dict[str, float]]]) -> Iterator[tuple[WalkJump, dict[str, float]]]:
    """Walks at σ: lengths of the grid times σ, rates over σ, and counts as they are."""
    powers = {"delta": 1, "friction": -1}
    for sampler, each in grid.items():
        for units in each:
            own = {name: value * sigma ** powers.get(name, 0) for name, value in units.items()}
            yield walk_at(sigma, sampler=sampler, delta=own.pop("delta"), settings=own), units


@torch.no_grad()
def _row(
    energy: Energy, config: WalkJump, units: dict[str, float], axes: Tensor, spec: RunSpec, context: Context
) -> dict[str, Any]:
    """One setting's walk, measured."""
    chains, plan = shortened(CHAINS, context, least=2), context.plan
    steps = max(8, shortened(GRADIENTS, context, least=80) // config.gradients_per_step)
    state = begin(chains, spec.data.shape, context.seed, device=plan.device, dtype=plan.dtype)
    series = []
    for step in range(steps):
        state, _ = walk_step(energy, state, config, context.seed)
        if step >= WARM_UP * steps:
            series.append(state.y.flatten(1) @ axes)  # (chains, AXES)
    accepted = acceptance(config, state)
    row: dict[str, Any] = {"sampler": config.sampler, "settings": units, "acceptance": accepted, "ess_per_gradient": None,
                           "split_rhat": None, "message": trouble(accepted, state.stopped_at.tolist())}  # fmt: skip
    if row["message"]:
        return row
    found = [statistics(one, config.gradients_per_step) for one in torch.stack(series).double().unbind(2)]
    sizes, r_hats = [each["ess_per_step"] for each in found], [each["split_rhat"] for each in found]
    if None in sizes or None in r_hats:
        return row | {"message": "its effective sample size cannot be told"}
    row["split_rhat"] = worst = max(r for r in r_hats if r is not None)
    if worst < CONVERGED:
        row["ess_per_gradient"] = min(s for s in sizes if s is not None)
    else:
        row["message"] = f"not mixed after {steps * config.gradients_per_step} gradients: split-R̂ is {worst:.2f}"
    return row
