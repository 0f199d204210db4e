"""Footnote 3: compare ReLU with SiLU and two other smooth activation functions."""

import itertools

from tune_spaces.registry import Base, register_space
from uvb.models.activations import ACTIVATIONS
from uvb.spec import RunSpec


@register_space("activation")
def activation(base: Base) -> list[RunSpec]:
    """Every model with every activation function, at the largest noise level."""
    combinations = itertools.product(base.seeds, sorted(ACTIVATIONS), base.models)
    return [base.spec(model, activation=name, seed=seed) for seed, name, model in combinations]
