"""On the data set "mixture", whose true score is known: how near a model comes to the best possible estimator."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from uvb.data.mixture import load_mixture, true_mixture
from uvb.errors import UserError
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import evaluation_images, noisy_blocks, paired_difference
from uvb.models.base import Energy, Estimator
from uvb.spec import RunSpec


@register_experiment("mixture", data="mixture", scaled=False)
@torch.no_grad()
def mixture(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: one row {model, sigma, loss, stderr, optimum, mean_predictor, score_error, excess_share}.

    All on the test set under the losses' own noise: `optimum` is the loss of the true posterior mean, `mean_predictor`
    that of the mixture's mean, `stderr` the standard error of loss - optimum (paired), `excess_share` (loss - optimum) /
    (mean_predictor - optimum), and `score_error` E‖s_model(y) - ∇log p(y)‖² with s = (x̂ - y)/σ².

    Raises:
        UserError: the images are not those of the data set "mixture".
    """
    images, plan, config = context.images, context.plan, context.evaluation
    if images.checksum != _checksum():
        raise UserError(f"the experiment mixture needs the data set mixture, whose density is known, not {images.name!r}")
    truth = true_mixture()
    center = (truth.weights[:, None, None, None] * truth.means).sum(0)  # (C, H, W)
    x = evaluation_images(images, "test", config)
    sums: dict[str, list[Tensor]] = {"model": [], "best": [], "mean": [], "score": []}
    for draw in range(config.draws):
        for clean, y, eps in noisy_blocks(x, images.levels, spec.sigma, model.noise_dim, "test", draw, config, plan):
            with plan.autocast():
                x_hat = model(y, eps).double().cpu()
            clean, y = clean.double().cpu(), y.double().cpu()
            best = truth.posterior_mean(y, spec.sigma)
            sums["model"].append(_squares(clean - x_hat))
            sums["best"].append(_squares(clean - best))
            sums["mean"].append(_squares(clean - center))
            sums["score"].append(_squares(x_hat - best) / spec.sigma**4)
    losses = {name: torch.cat(parts).reshape(config.draws, len(x)).T for name, parts in sums.items()}  # (N, draws)
    mean = {name: values.mean().item() for name, values in losses.items()}
    excess = paired_difference(losses["model"], losses["best"])
    row = {
        "model": spec.model, "sigma": spec.sigma, "estimator": "energy" if isinstance(model, Energy) else "direct",
        "loss": mean["model"], "stderr": excess.stderr, "optimum": mean["best"], "mean_predictor": mean["mean"],
        "score_error": mean["score"], "excess_share": excess.value / (mean["mean"] - mean["best"]),
    }  # fmt: skip
    return Result({"sigma": spec.sigma, "rows": [row]})


def _squares(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).sum(1)


@cache
def _checksum() -> str:
    return load_mixture(Path()).checksum
