"""Loss against parameters: UVB with ½, 1 and 2 times its widths, and every other model with as many parameters."""

from tune_spaces.registry import Base, register_space
from uvb.models.capacity import widths_at
from uvb.spec import RunSpec

MULTIPLIERS = (0.5, 1.0, 2.0)


@register_space("capacity")
def capacity(base: Base) -> list[RunSpec]:
    """Every model with ½, 1 and 2 times the widths, at the largest noise level.

    Counts match within 1 %, except where DEEN has the paper's widths: 2 % fewer on MNIST and 12 % fewer on CIFAR-10.
    """
    return [
        base.spec(model, widths=widths_at(model, base.data.shape, factor * base.width), seed=seed)
        for factor in MULTIPLIERS
        for model in base.models
        for seed in base.seeds
    ]
