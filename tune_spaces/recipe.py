"""How the `fast` recipe is found: the same search for every model, so that a comparison stays fair."""

import itertools
import math
from typing import Any, Literal

from tune_spaces.registry import Base, register_space
from uvb.spec import RunSpec

RATES = (1e-4, 5e-4, 1e-3, 2e-3, 4e-3)
OPTIMIZER_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
BATCHES = (64, 128)
BETA2S = (0.999, 0.99, 0.95)
CLIPS = (100.0, 10.0, 3.0)
SCHEDULES: tuple[Literal["constant", "cosine"], ...] = ("constant", "cosine")


@register_space("recipe", kind="search")
def recipe(base: Base) -> list[RunSpec]:
    """Learning rate x batch x schedule of every model, at the largest noise level; ASHA stops what does badly."""
    found = []
    for model, rate, batch, schedule in itertools.product(base.models, RATES, BATCHES, SCHEDULES):
        chosen = base.recipe.changed(learning_rate=rate, batch_size=batch, schedule=schedule)
        found += [base.spec(model, recipe=chosen, seed=seed) for seed in base.seeds]
    return found


@register_space("recipe_details", kind="choice")
def recipe_details(base: Base) -> list[RunSpec]:
    """The base's recipe, and that recipe with one thing changed, at the largest noise level.

    The search sees short trainings only, where a schedule that decays looks worse than it is; here each is trained to its
    end: give it the recipe that `recipe` found.
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


@register_space("recipe_clip", kind="choice")
def recipe_clip(base: Base) -> list[RunSpec]:
    """Clipping x peak rate (the base's, and twice that) of every model, each trained to its end, at the largest noise level."""
    pairs = itertools.product((1.0, 2.0), CLIPS, base.models, base.seeds)
    return [
        base.spec(model, recipe=base.recipe.changed(learning_rate=factor * base.recipe.learning_rate, clip=clip), seed=seed)
        for factor, clip, model, seed in pairs
    ]


@register_space("recipe_clip_alone", kind="choice")
def recipe_clip_alone(base: Base) -> list[RunSpec]:
    """The base's recipe clipped at 100 and at 10, of every model: what of `recipe_clip` wide networks leave time for."""
    recipes = [base.recipe.changed(clip=clip) for clip in CLIPS[:2]]
    return [base.spec(model, recipe=each, seed=seed) for each in recipes for model in base.models for seed in base.seeds]


@register_space("recipe_optimizer", kind="choice")
def recipe_optimizer(base: Base) -> list[RunSpec]:
    """Adam and Muon over the same peak rates, of every model, each trained to its end, at the largest noise level."""
    optimizers: tuple[Literal["adam", "muon"], ...] = ("adam", "muon")
    return [
        base.spec(model, recipe=base.recipe.changed(optimizer=optimizer, learning_rate=rate), seed=seed)
        for optimizer, rate, model, seed in itertools.product(optimizers, OPTIMIZER_RATES, base.models, base.seeds)
    ]


@register_space("recipe_beta2", kind="choice")
def recipe_beta2(base: Base) -> list[RunSpec]:
    """How long Adam remembers the squares of gradients x peak rate, of every model, each trained to its end."""
    return [
        base.spec(model, recipe=base.recipe.changed(beta2=beta2, learning_rate=rate), seed=seed)
        for beta2, rate, model, seed in itertools.product(BETA2S, OPTIMIZER_RATES, base.models, base.seeds)
    ]


@register_space("recipe_beta2_alone", kind="choice")
def recipe_beta2_alone(base: Base) -> list[RunSpec]:
    """The base's recipe with each of these memories, of every model: what of `recipe_beta2` wide networks leave time for."""
    recipes = [base.recipe.changed(beta2=beta2) for beta2 in BETA2S]
    return [base.spec(model, recipe=each, seed=seed) for each in recipes for model in base.models for seed in base.seeds]
