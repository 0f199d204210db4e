"""Spaces that search for a recipe. Every model is trained with the same recipes, so that comparisons are fair."""

import itertools
import math
from typing import Any, Literal

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

RATES = (1e-4, 5e-4, 1e-3, 2e-3, 4e-3)
BATCHES = (64, 128)
SCHEDULES: tuple[Literal["constant", "cosine"], ...] = ("constant", "cosine")


@register_space("recipe", kind="search")
def recipe(base: Base) -> list[RunSpec]:
    """Learning rate x batch size x schedule for every model, at the largest noise level. ASHA stops the worst early."""
    found = []
    for model, rate, batch, schedule in itertools.product(base.models, RATES, BATCHES, SCHEDULES):
        chosen = base.recipe.changed(learning_rate=rate, batch_size=batch, schedule=schedule)
        found += [base.spec(model, recipe=chosen, seed=seed) for seed in base.seeds]
    return found


@register_space("recipe_details", kind="choice")
def recipe_details(base: Base) -> list[RunSpec]:
    """The base recipe and variants of it, at the largest noise level. Each variant changes one field.

    Set the base recipe to the one that the space `recipe` found. That search stops most trainings early, and a decaying
    schedule then looks worse than it is. In this space every training finishes.
    """
    now = base.recipe
    changes: list[dict[str, Any]] = [{}]
    changes += [{"schedule": "constant" if now.schedule == "cosine" else "cosine"}]
    changes += [{"learning_rate": now.learning_rate * factor} for factor in (0.5, 2.0)]
    changes += [{"batch_size": 64 if now.batch_size == 128 else 128}]
    changes += [{"warmup": warmup} for warmup in (0.0, 0.15)]
    changes += [{"clip": clip} for clip in (math.inf, 10.0)]
    changes += [{"ema": ema} for ema in (0.0, 0.99)]
    recipes = dict.fromkeys(now.changed(**change) for change in changes)
    return [base.spec(model, recipe=each, seed=seed) for model in base.models for each in recipes for seed in base.seeds]
