"""Remark 3 and open question 2: the generalization gap against the size of the training set."""

import dataclasses
import math

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)


@register_space("train_size")
def train_size(base: Base) -> list[RunSpec]:
    """Every model on 1/8, 1/4, 1/2 and all of the images, with the same number of steps, at the largest noise level.

    With the same number of epochs, a small set would get fewer steps, and its training would end too early.
    """
    recipe, images = base.recipe, base.data.train_images
    steps = recipe.epochs * math.ceil(images / recipe.batch_size)
    found = []
    for fraction in FRACTIONS:
        count = max(1, round(fraction * images))
        epochs = max(1, round(steps / math.ceil(count / recipe.batch_size)))
        data, longer = dataclasses.replace(base.data, train_images=count), dataclasses.replace(recipe, epochs=epochs)
        found += [base.spec(model, data=data, recipe=longer, seed=seed) for model in base.models for seed in base.seeds]
    return found
