"""Loss against parameters: UVB's widths times ½, 1, 2, and every other model at the count that UVB has then."""

from tune_spaces.registry import Base, register_space
from uvb.models.capacity import widths_at
from uvb.spec import RunSpec

MULTIPLIERS = (0.5, 1.0, 2.0)


@register_space("capacity")
def capacity(base: Base) -> list[RunSpec]:
    """Every model with ½, 1 and 2 times the widths, at the largest noise level.

    Counts match within 1 %, but for DEEN's own widths at 1 on the paper's data: 2 % fewer on MNIST, 12 % on CIFAR-10.
    """
    return [
        base.spec(model, widths=widths_at(model, base.data.shape, factor * base.width), seed=seed)
        for factor in MULTIPLIERS
        for model in base.models
        for seed in base.seeds
    ]
