"""Tables 4-5: KL and reconstruction of the encoder and decoder, on the test set, in every convention."""

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.internals import measure_internals
from uvb.measure.losses import evaluation_images
from uvb.models.base import Estimator, LatentEnergy
from uvb.spec import RunSpec


@register_experiment("internals", needs="latent", scaled=False)
def internals(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Rows of internals.parquet."""
    assert isinstance(model, LatentEnergy)
    x = evaluation_images(context.images, "test", context.evaluation)
    means = measure_internals(model, x, context.images.levels, "test", context.evaluation, context.plan)
    rows = [{"quantity": name, "value": mean.value, "stderr": mean.stderr} for name, mean in means.items()]
    return Result({"spec_id": spec.spec_id, "rows": rows})
