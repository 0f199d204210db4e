"""Loss against parameters: UVB's widths times ½, 1, 2, and every other model at the count that UVB has then."""

from tune_spaces.registry import Base, register_space
from uvb.capacity import default_widths, matched_widths, parameters, scaled_widths
from uvb.models import get_model
from uvb.spec import RunSpec

MULTIPLIERS = (0.5, 1.0, 2.0)


@register_space("capacity")
def capacity(base: Base) -> list[RunSpec]:
    """Every model with ½, 1 and 2 times the widths, counts matched within 1 %, at the largest noise level."""
    shape = base.data.shape
    uvb = default_widths("uvb", shape)
    found = []
    for factor in MULTIPLIERS:
        widths = scaled_widths(uvb, factor)
        count = parameters("uvb", shape, widths)
        for model in base.models:
            # models built like UVB take its widths; others the widths, enumerated, that have its count
            own = widths if get_model(model).match == "latent" else matched_widths(model, shape, count)
            found += [base.spec(model, widths=own, seed=seed) for seed in base.seeds]
    return found
