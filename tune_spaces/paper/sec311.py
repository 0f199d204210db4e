"""Section 3.1.1: the paper's learning rate and ten times that rate, at batch sizes 32, 64 and 128."""

import itertools

from tune_spaces.registry import Base, register_space
from uvb.spec import Recipe, RunSpec

RATES = (1e-4, 1e-3)
BATCHES = (32, 64, 128)


@register_space("sec311")
def sec311(base: Base) -> list[RunSpec]:
    """Adam at a constant 1e-4 (the paper's) and 1e-3 (which it calls unstable), batch 32, 64, 128, at the largest noise level.

    From the base recipe only the number of epochs is taken. There is no warm-up, clipping or averaging. The report names
    trainings that diverge.
    """
    found = []
    for model, rate, batch in itertools.product(base.models, RATES, BATCHES):
        recipe = Recipe(f"constant {rate:g}", epochs=base.recipe.epochs, batch_size=batch, learning_rate=rate)
        found += [base.spec(model, recipe=recipe, seed=seed) for seed in base.seeds]
    return found
