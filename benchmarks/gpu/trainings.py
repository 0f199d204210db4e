"""The trainings for a lent GPU. The most informative come first, because the time on the GPU is limited."""

import dataclasses
from typing import Any

from benchmarks.training import spec_on
from uvb.data import ImageSet, load_dataset
from uvb.models import get_model
from uvb.spec import RECIPES, RunSpec, Widths

EPOCHS = 40  # the aim is the paper's loss, for which the paper trains 400 epochs
RATES = {"fast": 5e-4, "muon": 2e-3}  # peak rates. The recipes' own rates are for shorter trainings, and too high here
TRIED: tuple[dict[str, Any], ...] = (  # changes to `fast` that are tried for UVB
    {"learning_rate": 1e-3, "clip": 10.0},
    {"learning_rate": 1e-3},
    {"learning_rate": 1e-3, "batch_size": 128},
    {"learning_rate": 2.5e-4},
    {},
)
SIGMAS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # follow σ = 1. Large σ come first, because UVB's lead in the paper grows with σ


def paper_spec(images: ImageSet, model: str, sigma: float, recipe: str, **changes: Any) -> RunSpec:
    """The paper's network on all training images.

    A study with `--epochs 40 --learning-rate 5e-4` (or `--recipe paper`) has the same `spec_id`.
    """
    chosen = RECIPES[recipe]
    if recipe in RATES:
        chosen = chosen.changed(**{"epochs": EPOCHS, "learning_rate": RATES[recipe], **changes})
    return spec_on(images, model, chosen, widths=get_model(model).widths, sigma=sigma)


def in_order_of_value(sets: dict[str, ImageSet]) -> list[RunSpec]:
    """The trainings for the paper's tables on the data sets in `sets`, the most informative first."""
    specs: list[RunSpec] = []
    if mnist := sets.get("mnist"):
        recipes = [RECIPES["fast"].changed(epochs=EPOCHS, **changes) for changes in TRIED]
        tried = [dataclasses.replace(paper_spec(mnist, "uvb", 1.0, "fast"), recipe=recipe) for recipe in recipes]
        specs += [paper_spec(mnist, "uvb", 1.0, recipe) for recipe in ("fast", "muon")]
        specs += [paper_spec(mnist, model, 1.0, "fast") for model in ("deen", "vae")]
        specs += [paper_spec(mnist, "uvb", 1.0, "muon", learning_rate=1e-3), paper_spec(mnist, "deen", 1.0, "muon")]
        specs += [*tried[:2], paper_spec(mnist, "uvb", 1.0, "paper"), *tried[2:]]
        specs += [paper_spec(mnist, model, sigma, "fast") for sigma in SIGMAS for model in ("uvb", "deen")]
    if cifar10 := sets.get("cifar10"):
        specs += [paper_spec(cifar10, model, sigma, "fast") for sigma in (1.0, 0.5) for model in ("uvb", "deen")]
    if mnist:
        specs += [paper_spec(mnist, "deen", 1.0, "paper")]
    return specs


def rehearsal(widths: Widths) -> tuple[dict[str, ImageSet], list[RunSpec]]:
    """A few digits under MNIST's name, and two short trainings of tiny networks on them."""
    digits = load_dataset("digits")
    labels = {"train_labels": digits.train_labels[:400], "test_labels": digits.test_labels[:60]}
    images = ImageSet("mnist", digits.train[:400], digits.test[:60], **labels, levels=digits.levels)
    recipe = dataclasses.replace(RECIPES["fast"], epochs=3, batch_size=32)
    return {"mnist": images}, [spec_on(images, model, recipe, widths=widths) for model in ("uvb", "deen")]


def key_of(spec: RunSpec) -> str:
    """The words of a training that `benchmarks.gpu.run --only` searches."""
    return f"{spec.data.name} {spec.model} {spec.recipe.name} {spec.sigma:g}"
