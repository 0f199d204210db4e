"""Tables 2-3: train and test denoising loss of every estimator a model offers."""

from torch import Tensor

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.losses import clustered_mean, denoisers, evaluation_images, image_losses
from uvb.models.base import Estimator
from uvb.spec import RunSpec


@register_experiment("losses", scaled=False)
def losses(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Rows of losses.parquet; the arrays "<split>/<estimator>" hold each image's loss, averaged over draws, (N,)."""
    rows: list[dict[str, object]] = []
    arrays: dict[str, Tensor] = {}
    config, images = context.evaluation, context.images
    for split in ("train", "test"):
        x = evaluation_images(images, split, config, spec.data.train_images)
        for name, denoise in denoisers(model).items():
            values = image_losses(denoise, model.noise_dim, x, images.levels, spec.sigma, split, config, context.plan)
            mean = clustered_mean(values)
            arrays[f"{split}/{name}"] = values.mean(1)
            rows.append(
                {"split": split, "estimator": name, "loss": mean.value, "stderr": mean.stderr, "images": len(x),
                 "draws": config.draws}
            )  # fmt: skip
    return Result({"spec_id": spec.spec_id, "rows": rows}, arrays)
