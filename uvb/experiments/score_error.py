"""How far a model's estimator is from the training set's exact posterior mean (Eq. 1), which is how far its score is."""

from dataclasses import replace

import torch
from torch import Tensor

from uvb.data.stream import resident
from uvb.exact.empirical_bayes import posterior_mean
from uvb.experiments._draws import shortened
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import clustered_mean, denoisers, evaluation_images, noisy_blocks
from uvb.models.base import Estimator
from uvb.spec import RunSpec

IMAGES = 1000


@register_experiment("score_error", where="largest", default=False)
@torch.no_grad()
def score_error(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{split, estimator, error, stderr, score_error, images}], error = E‖x̂_model(y) - x̂_exact(y)‖².

    `score_error` is error/σ⁴, the squared error of ∇log p(y) (Eq. 2). On the training set the expected error is the
    loss less the floor; on the test set a model that generalizes is *right* to differ.
    """
    images, plan = context.images, context.plan
    prior = resident(images.train[: spec.data.train_images], plan.device)
    count, rows = shortened(IMAGES, context, least=50), []
    few = replace(context.evaluation, train_images=count, test_images=count)
    for split in ("train", "test"):
        x = evaluation_images(images, split, few, spec.data.train_images)
        found: dict[str, list[Tensor]] = {name: [] for name in denoisers(model)}
        blocks = noisy_blocks(x, images.levels, spec.sigma, model.noise_dim, split, 0, context.evaluation, plan)
        for _, y, eps in blocks:
            exact = posterior_mean(y, prior, spec.sigma, levels=images.levels)
            for name, denoise in denoisers(model).items():
                with plan.autocast():
                    x_hat = denoise(y, eps)
                found[name].append((x_hat - exact).square().flatten(1).double().sum(1).cpu())
        for name, parts in found.items():
            mean = clustered_mean(torch.cat(parts))
            rows.append(
                {"split": split, "estimator": name, "error": mean.value, "stderr": mean.stderr,
                 "score_error": mean.value / spec.sigma**4, "images": len(x)}
            )  # fmt: skip
    return Result({"sigma": spec.sigma, "rows": rows})
