"""Tables 2 and 3: every model at every noise level."""

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec


@register_space("sigma_grid")
def sigma_grid(base: Base) -> list[RunSpec]:
    """Every model at every noise level and seed."""
    return [base.spec(model, sigma, seed=seed) for seed in base.seeds for sigma in base.sigmas for model in base.models]
