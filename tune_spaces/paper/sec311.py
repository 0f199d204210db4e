"""Section 3.1.1: the paper's learning rate, and ten times that rate, at batch sizes 32, 64 and 128."""

import itertools

from tune_spaces.registry import Base, register_space
from uvb.spec import Recipe, RunSpec

RATES = (1e-4, 1e-3)
BATCHES = (32, 64, 128)


@register_space("sec311")
def sec311(base: Base) -> list[RunSpec]:
    """Adam at a constant rate and three batch sizes, at the largest noise level.

    The paper uses the rate 1e-4 and calls 1e-3 unstable. The trainings take only the number of epochs from the base recipe.
    They use no warm-up, no clipping and no averaging. The report names the trainings that diverge.
    """
    found = []
    for model, rate, batch in itertools.product(base.models, RATES, BATCHES):
        recipe = Recipe(f"constant {rate:g}", epochs=base.recipe.epochs, batch_size=batch, learning_rate=rate)
        found += [base.spec(model, recipe=recipe, seed=seed) for seed in base.seeds]
    return found
