"""Tables 2-3: train and test denoising loss of every estimator that a model offers."""

from torch import Tensor

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import clustered_mean, denoisers, image_losses
from uvb.models.base import Estimator
from uvb.spec import RunSpec


@register_experiment("losses", scaled=False, gradients=lambda spec, context: context.estimates("train") + context.estimates())
def losses(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: the rows of losses.parquet. Arrays "<split>/<estimator>", (N,): each image's loss, averaged over noise draws."""
    rows: list[dict[str, object]] = []
    arrays: dict[str, Tensor] = {}
    for split in ("train", "test"):
        noisy = context.noisy(spec, split)
        for name, denoise in denoisers(model).items():
            values = image_losses(denoise, model.noise_dim, noisy)
            mean = clustered_mean(values)
            arrays[f"{split}/{name}"] = values.mean(1)
            rows.append(
                {"split": split, "estimator": name, "loss": mean.value, "stderr": mean.stderr, "images": len(noisy),
                 "draws": context.evaluation.draws}
            )  # fmt: skip
    return Result({"spec_id": spec.spec_id, "rows": rows}, arrays)
