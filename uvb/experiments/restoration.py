"""Composition: inpainting, deblurring and enlarging test images by an energy and a known measurement."""

from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.exact.empirical_bayes import EmpiricalBayes
from uvb.experiments._draws import latent_noise, shortened
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import Mean, clustered_mean, drawn_test_images
from uvb.models.base import Energy, Estimator
from uvb.noise import normal
from uvb.sampling.composed import TASKS, Measurement, Restored, measurement, restore
from uvb.spec import RunSpec

IMAGES, CHAINS, DRAWS, WARM_UP = 4, 6, 8, 4
NOISE = 0.5  # τ, in units of σ
LEVEL = 0.9  # of the intervals whose coverage is counted


@register_experiment("restoration", needs="energy", where="largest")
def restoration(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{task, energy, loss, stderr, coverage, acceptance, message}] for the model and the exact energy.

    Of a test image x the measurement is v = A y + τ noise with y = x + σ noise and τ = σ/2. `loss` is ‖x - x̂‖² of the mean
    of all jumps; `denoised`, in the row of task "none", that of x̂(y), what seeing all of y would give. `coverage` is the
    share of the pixels of y in their 90 % intervals: about 0.9 where the energy is the data's. Arrays, for each task: clean,
    measured (what v says of each pixel), mean and spread (standard deviation) of the jumps, each (N, C, H, W).
    """
    assert isinstance(model, Energy)
    images, plan = context.images, context.plan
    n = shortened(IMAGES, context, least=2)
    x = images.to_unit(drawn_test_images(images, n, context.evaluation).to(plan.device), plan.dtype)
    y = x + spec.sigma * normal(tuple(x.shape), context.seed, "restoration noise").to(x)
    exact = EmpiricalBayes(images.train[: spec.data.train_images].to(plan.device), spec.sigma, levels=images.levels)
    energies: dict[str, Energy] = {"model": Frozen(model, plan), "exact": exact}
    rows, arrays = [], {"clean": x}
    for name, energy in energies.items():
        with torch.no_grad():
            x_hat = energy(y, latent_noise(energy, len(y), y, context, "restoration"))
        rows.append(_row("none", name, _loss(x, x_hat)))
    for task in TASKS:
        if task == "enlarge" and (spec.data.shape[1] % 2 or spec.data.shape[2] % 2):
            rows.append(_row(task, "model", None, message="images with odd sides cannot be halved"))
            continue
        measured, tau = measurement(task, spec.data.shape, x), NOISE * spec.sigma
        clear = measured.apply(y)
        observed = clear + tau * normal(tuple(clear.shape), context.seed, "measurement", task).to(x)
        arrays[f"{task}/measured"] = picture(measured, observed, x)
        for name, energy in energies.items():
            found = restore(energy, measured, observed, tau, chains=CHAINS, draws=shortened(DRAWS, context, least=4),
                            warm_up=shortened(WARM_UP, context, least=2), seed=context.seed)  # fmt: skip
            rows.append(_measured_row(task, name, x, y, found))
            if name == "model":
                arrays[f"{task}/mean"] = found.x_hat.mean((0, 2))
                arrays[f"{task}/spread"] = found.x_hat.transpose(0, 1).flatten(1, 2).std(1)
    return Result({"sigma": spec.sigma, "tau": NOISE * spec.sigma, "images": n, "chains": CHAINS, "rows": rows}, arrays)


def coverage(y: Tensor, draws: Tensor, level: float = LEVEL) -> float:
    """The share of pixels of y (N, C, H, W) that lie in the central interval of their draws (T, N, chains, C, H, W).

    The ends are quantiles at p (n + 1) of n sorted draws, so that few draws of the right density cover as many do.
    """
    ordered = draws.transpose(1, 2).flatten(0, 1).sort(0).values  # (T * chains, N, C, H, W)
    ends = []
    for sign in (-1, 1):
        at = min(max((0.5 + sign * level / 2) * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
        below = min(int(at), len(ordered) - 2)
        ends.append(torch.lerp(ordered[below], ordered[below + 1], at - below))
    return float(((y >= ends[0]) & (y <= ends[1])).double().mean())


def _measured_row(task: str, energy: str, x: Tensor, y: Tensor, found: Restored) -> dict[str, Any]:
    if found.stopped:
        return _row(task, energy, None, message=f"{found.stopped} chains diverged")
    if found.acceptance == 0:
        return _row(task, energy, None, message="no proposal was accepted, so the chains never moved")
    return _row(task, energy, _loss(x, found.x_hat.mean((0, 2))), coverage(y, found.y), found.acceptance)


def _row(
    task: str, energy: str, loss: Mean | None, covered: float | None = None, accepted: float | None = None, message: str = ""
) -> dict[str, Any]:
    return {"task": task, "energy": energy, "loss": loss and loss.value, "stderr": loss and loss.stderr,
            "coverage": covered, "acceptance": accepted, "message": message}  # fmt: skip


def _loss(x: Tensor, x_hat: Tensor) -> Mean:
    return clustered_mean((x - x_hat).square().flatten(1).sum(1).cpu())


def picture(measured: Measurement, observed: Tensor, x: Tensor) -> Tensor:
    """v as an image of x's size: grey where nothing is measured, and every small pixel a square."""
    if observed.shape[2:] != x.shape[2:]:
        observed = torch.nn.functional.interpolate(observed, x.shape[2:], mode="nearest")
    return torch.where(measured.seen > 0, observed, 0.5 * torch.ones_like(x))
