"""How the `fast` recipe is found: the same search for every model, so that a comparison stays fair."""

import dataclasses
import itertools
from typing import Literal

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

RATES = (1e-4, 3e-4, 1e-3, 3e-3)
BATCHES = (32, 64, 128)
SCHEDULES: tuple[Literal["constant", "cosine"], ...] = ("constant", "cosine")


@register_space("recipe", kind="search")
def recipe(base: Base) -> list[RunSpec]:
    """Learning rate x batch x schedule of every model, at the largest noise level; ASHA stops what does badly."""
    found = []
    for model, rate, batch, schedule in itertools.product(base.models, RATES, BATCHES, SCHEDULES):
        chosen = dataclasses.replace(base.recipe, learning_rate=rate, batch_size=batch, schedule=schedule)
        found += [base.spec(model, recipe=chosen, seed=seed) for seed in base.seeds]
    return found
