"""Which trainings a lent GPU does, the most telling first."""

import dataclasses
from typing import Any

from uvb.data import ImageSet
from uvb.models import get_model
from uvb.spec import RECIPES, DataRef, RunSpec, Widths

EPOCHS = 40  # the aim: the paper's losses of 400 epochs in at most this many
RATES = {"fast": 5e-4, "muon": 2e-3}  # peaks; the recipes' own were found in short trainings and are too high for these
TRIED: tuple[dict[str, Any], ...] = (  # instead of `fast`, for UVB
    {"learning_rate": 1e-3, "clip": 10.0},
    {"learning_rate": 1e-3},
    {"learning_rate": 1e-3, "batch_size": 128},
    {"learning_rate": 2.5e-4},
    {},
)
SIGMAS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # after 1.0: the largest first, where the paper's gap is widest


def paper_spec(images: ImageSet, model: str, sigma: float, recipe: str, **changes: Any) -> RunSpec:
    """The paper's network on all training images.

    A study with `--epochs 40 --learning-rate 5e-4` (or `--recipe paper`) has the same `spec_id`.
    """
    data = DataRef(images.name, images.checksum, images.shape, len(images.train))
    known, chosen = get_model(model), RECIPES[recipe]
    if recipe in RATES:
        chosen = chosen.changed(**{"epochs": EPOCHS, "learning_rate": RATES[recipe]} | changes)
    return RunSpec(data, model, known.widths, sigma, known.objective, chosen)


def in_order_of_value(sets: dict[str, ImageSet]) -> list[RunSpec]:
    """Every training of the paper's tables that the data sets allow."""
    specs: list[RunSpec] = []
    if mnist := sets.get("mnist"):
        tried = [dataclasses.replace(paper_spec(mnist, "uvb", 1.0, "fast"), recipe=fast(**changes)) for changes in TRIED]
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


def fast(**changes: Any) -> Any:
    """`fast` at the length of these trainings, its rate its own unless changed."""
    return RECIPES["fast"].changed(epochs=EPOCHS, **changes)


def rehearsal_specs(images: ImageSet, widths: Widths) -> list[RunSpec]:
    """Two short trainings of tiny networks."""
    recipe = dataclasses.replace(RECIPES["fast"], epochs=3, batch_size=32)
    specs = [paper_spec(images, model, 1.0, "fast") for model in ("uvb", "deen")]
    return [dataclasses.replace(spec, widths=widths, recipe=recipe) for spec in specs]


def key_of(spec: RunSpec) -> str:
    """What `--only` looks into."""
    return f"{spec.data.name} {spec.model} {spec.recipe.name} {spec.sigma:g}"
