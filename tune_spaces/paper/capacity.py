"""Loss against the number of parameters: UVB at ½, 1 and 2 times its widths, and every other model with as many parameters."""

from tune_spaces.registry import Base, register_space
from uvb.models.capacity import widths_at
from uvb.spec import RunSpec

MULTIPLIERS = (0.5, 1.0, 2.0)


@register_space("capacity")
def capacity(base: Base) -> list[RunSpec]:
    """Every model at ½, 1 and 2 times the base width, at the largest noise level.

    At each size the models' parameter counts match within 1 %. The exception is DEEN where it has the paper's widths: it has
    2 % fewer parameters on MNIST and 12 % fewer on CIFAR-10.
    """
    return [
        base.spec(model, widths=widths_at(model, base.data.shape, factor * base.width), seed=seed)
        for factor in MULTIPLIERS
        for model in base.models
        for seed in base.seeds
    ]
