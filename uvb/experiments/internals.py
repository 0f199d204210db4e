"""Tables 4-5: KL and reconstruction error of encoder and decoder on the test set.

The captions of the paper's tables do not say exactly what was computed, so each possible quantity is measured.
"""

from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.internals import measure_internals
from uvb.models.base import Estimator, LatentEnergy
from uvb.spec import RunSpec


@register_experiment("internals", needs="latent", scaled=False, gradients=lambda spec, context: context.estimates())
def internals(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: the rows of internals.parquet, [{quantity, value, stderr}]. `measure_internals` explains the quantities."""
    assert isinstance(model, LatentEnergy)
    means = measure_internals(model, context.noisy(spec))
    rows = [{"quantity": name, "value": mean.value, "stderr": mean.stderr} for name, mean in means.items()]
    return Result({"spec_id": spec.spec_id, "rows": rows})
