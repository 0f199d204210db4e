"""The distance between a model's estimator and the exact posterior mean (Eq. 1), and between their scores."""

import torch
from torch import Tensor

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import clustered_mean, denoisers
from uvb.models.base import Estimator
from uvb.spec import RunSpec

IMAGES = 1000


def _gradients(spec: RunSpec, context: Context) -> float:
    return sum(context.estimates(split, context.shortened(IMAGES, least=50)) for split in ("train", "test"))


@register_experiment("score_error", where="largest", default=False, gradients=_gradients)
@torch.no_grad()
def score_error(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{split, estimator, error, stderr, score_error, images}].

    - `error`: E‖x̂_model(y) - x̂_exact(y)‖², where x̂_exact is the posterior mean of the training set. On the training set its
      expectation is the model's loss minus the lowest possible loss. On the test set a model that generalizes should differ
      from x̂_exact.
    - `score_error`: error/σ⁴, the squared error of ∇log p(y) (Eq. 2).
    """
    exact, rows = context.exact_energy(spec), []

    def measure(_: Tensor, y: Tensor, eps: Tensor) -> dict[str, Tensor]:
        best, found = exact(y, eps), {}
        for name, denoise in denoisers(model).items():
            with context.plan.autocast():
                x_hat = denoise(y, eps)
            found[name] = (x_hat - best).square().flatten(1).double().sum(1)
        return found

    for split in ("train", "test"):
        noisy = context.noisy(spec, split, context.shortened(IMAGES, least=50))
        for name, values in noisy.measured(model.noise_dim, measure, draws=1).items():
            mean = clustered_mean(values)
            rows.append(
                {"split": split, "estimator": name, "error": mean.value, "stderr": mean.stderr,
                 "score_error": mean.value / spec.sigma**4, "images": len(noisy)}
            )  # fmt: skip
    return Result({"sigma": spec.sigma, "rows": rows})
