"""How close a model comes to the best possible estimator, on the data set "mixture", where the true score is known."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from uvb.data.mixture import load_mixture, true_mixture
from uvb.errors import UserError
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import clustered_mean
from uvb.models.base import Energy, Estimator
from uvb.spec import RunSpec


@register_experiment("mixture", data="mixture", scaled=False, gradients=lambda spec, context: context.estimates())
@torch.no_grad()
def mixture(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: one row {model, sigma, estimator, loss, stderr, optimum, mean_predictor, score_error, excess_share}.

    All numbers are measured on the test set, with the noise of the loss tables.

    - `optimum`: the loss of the true posterior mean.
    - `mean_predictor`: the loss of the mixture's mean.
    - `stderr`: the standard error of the paired difference loss - optimum.
    - `excess_share`: (loss - optimum) / (mean_predictor - optimum).
    - `score_error`: E‖s_model(y) - ∇log p(y)‖² with s_model = (x̂ - y)/σ².

    Raises:
        UserError: the images do not come from the data set "mixture".
    """
    images, noisy = context.images, context.noisy(spec)
    if images.checksum != _checksum():
        raise UserError(
            f"the experiment mixture needs the data set mixture, but these images are {images.name!r}; use --dataset mixture"
        )
    truth = true_mixture()
    center = (truth.weights[:, None, None, None] * truth.means).sum(0)  # (C, H, W)

    def measure(clean: Tensor, y: Tensor, eps: Tensor) -> dict[str, Tensor]:
        with noisy.plan.autocast():
            x_hat = model(y, eps).double().cpu()
        clean, y = clean.double().cpu(), y.double().cpu()
        best = truth.posterior_mean(y, spec.sigma)
        apart = {"model": clean - x_hat, "best": clean - best, "mean": clean - center, "score": x_hat - best}
        return {name: each.square().flatten(1).sum(1) for name, each in apart.items()}

    losses = noisy.measured(model.noise_dim, measure)  # (N, draws)
    mean = {name: values.mean().item() for name, values in losses.items()}
    excess = clustered_mean(losses["model"] - losses["best"])
    row = {
        "model": spec.model, "sigma": spec.sigma, "estimator": "energy" if isinstance(model, Energy) else "direct",
        "loss": mean["model"], "stderr": excess.stderr, "optimum": mean["best"], "mean_predictor": mean["mean"],
        "score_error": (losses["score"] / spec.sigma**4).mean().item(),
        "excess_share": excess.value / (mean["mean"] - mean["best"]),
    }  # fmt: skip
    return Result({"sigma": spec.sigma, "rows": [row]})


@cache
def _checksum() -> str:
    return load_mixture(Path()).checksum
