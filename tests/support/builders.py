"""Small specs and folders that many tests build on."""

import dataclasses
from pathlib import Path
from typing import Any

from uvb.data import ImageSet
from uvb.models import get_model
from uvb.models.ablations import UNetConfig
from uvb.spec import DataRef, Recipe, RunSpec, Widths

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
TINY = Widths(conv=(3, 4), hidden=6, latent=5, decoder=7)


def tiny_config(model: str) -> Any:
    """A small config of `model`: the paper's widths, or a U-Net's."""
    return TINY if isinstance(get_model(model).widths, Widths) else UNetConfig((3, 4), 5)


def tiny_spec(images: ImageSet, model: str = "uvb", **changes: object) -> RunSpec:
    """A spec that trains in a second: tiny widths, few images, two epochs, every feature of a recipe on."""
    recipe = Recipe("tiny", epochs=2, batch_size=32, learning_rate=1e-3, schedule="cosine", warmup=0.1, clip=10.0, ema=0.9)
    data = DataRef(images.name, images.checksum, images.shape, min(100, len(images.train)))
    spec = RunSpec(data, model, tiny_config(model), sigma=1.0, objective=get_model(model).objective, recipe=recipe)
    return dataclasses.replace(spec, **changes)


def a_row(name: str, value: float = 1.0, machine: str = "m, torch 1") -> dict[str, Any]:
    """A row of a benchmark's table."""
    from benchmarks.measure import figure

    return figure(name, value, "s") | {"machine": machine}
