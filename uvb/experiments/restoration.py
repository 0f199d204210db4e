"""Inpaint, deblur and enlarge test images, by an energy that is composed with a known measurement."""

import numpy as np
import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import clustered_mean
from uvb.models.base import Energy, Estimator
from uvb.sampling.composed import LEAPFROGS, TASKS, Measurement, Restored, measurement, restore
from uvb.spec import RunSpec
from uvb.words import counted

IMAGES, CHAINS, DRAWS, WARM_UP = 4, 6, 8, 4
NOISE = 0.5  # τ, in units of σ
LEVEL = 0.9  # probability of the posterior intervals


def _gradients(spec: RunSpec, context: Context) -> float:
    trajectories = context.shortened(DRAWS, least=4) + context.shortened(WARM_UP, least=2)
    return len(TASKS) * context.shortened(IMAGES, least=2) * CHAINS * trajectories * (LEAPFROGS + 1.5)


@register_experiment("restoration", needs="energy", where="largest", gradients=_gradients)
def restoration(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{task, energy, loss, stderr, coverage, acceptance, message}] for the model and the exact energy.

    A test image x is measured as v = A y + τ noise, with y = x + σ noise and τ = σ/2.

    - `loss`: ‖x - x̂‖², where x̂ is the mean of all jumps. For comparison, the row of task "none" has the loss of x̂(y), which
      uses all of y.
    - `coverage`: the share of the pixels of y in their 90 % posterior intervals. It is about 0.9 if the energy is right.

    The arrays, each (N, C, H, W), are `clean`, and for each task `measured` (v as a picture), `mean` and `spread` (the mean and
    the standard deviation of the jumps).
    """
    assert isinstance(model, Energy)
    images, plan = context.images, context.plan
    n = context.shortened(IMAGES, least=2)
    x = images.to_unit(context.test_images(n).to(plan.device), plan.dtype)
    y = x + spec.sigma * context.normal(x, "restoration noise")
    energies: dict[str, Energy] = {"model": Frozen(model, plan), "exact": context.exact_energy(spec)}
    rows, arrays = [], {"clean": x}
    for name, energy in energies.items():
        with torch.no_grad():
            x_hat = energy(y, context.latent_noise(energy, y, "restoration"))
        rows.append(_row("none", name, **_loss(x, x_hat)))
    for task in TASKS:
        if task == "enlarge" and (spec.data.shape[1] % 2 or spec.data.shape[2] % 2):
            rows.append(_row(task, "model", message="images with odd sides cannot be halved"))
            continue
        measured, tau = measurement(task, spec.data.shape, x), NOISE * spec.sigma
        clear = measured.apply(y)
        observed = clear + tau * context.normal(clear, "measurement", task)
        arrays[f"{task}/measured"] = picture(measured, observed, x)
        for name, energy in energies.items():
            found = restore(energy, measured, observed, tau, chains=CHAINS, draws=context.shortened(DRAWS, least=4),
                            warm_up=context.shortened(WARM_UP, least=2), seed=context.seed)  # fmt: skip
            rows.append(_row(task, name, **_measured(x, y, found)))
            if name == "model":
                arrays[f"{task}/mean"] = found.x_hat.mean((0, 2))
                arrays[f"{task}/spread"] = found.x_hat.transpose(0, 1).flatten(1, 2).std(1)
    return Result({"sigma": spec.sigma, "tau": NOISE * spec.sigma, "images": n, "chains": CHAINS, "rows": rows}, arrays)


def coverage(y: Tensor, draws: Tensor) -> float:
    """The share of pixels of y (N, C, H, W) that lie in the central interval of their draws (T, N, chains, C, H, W).

    The ends of the interval are "weibull" quantiles: the draw at position p (n + 1) of n sorted draws. So the expected
    coverage does not depend on n.
    """
    drawn, true = draws.transpose(1, 2).flatten(0, 1).cpu().numpy(), y.cpu().numpy()  # (T * chains, N, C, H, W)
    low, high = np.quantile(drawn, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2), axis=0, method="weibull")
    return float(((true >= low) & (true <= high)).mean())


def _row(task: str, energy: str, **found: object) -> dict[str, object]:
    nothing = dict.fromkeys(("loss", "stderr", "coverage", "acceptance"))
    return {"task": task, "energy": energy, **nothing, "message": "", **found}


def _measured(x: Tensor, y: Tensor, found: Restored) -> dict[str, object]:
    """The numbers of a row, computed from posterior draws and the true images x and y."""
    if found.stopped:
        return {"message": f"{counted(found.stopped, 'chain')} diverged"}
    if found.acceptance == 0:
        return {"message": "no proposal was accepted, so the chains never moved"}
    return {**_loss(x, found.x_hat.mean((0, 2))), "coverage": coverage(y, found.y), "acceptance": found.acceptance}


def _loss(x: Tensor, x_hat: Tensor) -> dict[str, object]:
    mean = clustered_mean((x - x_hat).square().flatten(1).sum(1).cpu())
    return {"loss": mean.value, "stderr": mean.stderr}


def picture(measured: Measurement, observed: Tensor, x: Tensor) -> Tensor:
    """Show v as a picture of the size of x. Missing pixels are grey. If v is smaller, its pixels become squares."""
    if observed.shape[2:] != x.shape[2:]:
        observed = torch.nn.functional.interpolate(observed, x.shape[2:], mode="nearest")
    return torch.where(measured.seen > 0, observed, 0.5)
