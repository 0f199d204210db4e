"""Pretrained models that come with the package, by name."""

from pathlib import Path

from uvb.errors import UserError
from uvb.models.base import Estimator
from uvb.models.io import load

SHIPPED = Path(__file__).resolve().parent.parent / "shipped"  # each folder in it has one model and its model card, README.md


def pretrained_names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/model.safetensors"))


def pretrained(name: str, device: str = "cpu") -> Estimator:
    """Load the shipped model `name`, e.g. "mnist-uvb", in evaluation mode. The stored bfloat16 weights become float32.

    Raises:
        UserError: there is no shipped model of that name.
    """
    if name not in pretrained_names():
        raise UserError(f"no shipped model {name!r}; choose one of: {', '.join(pretrained_names())}")
    return load(SHIPPED / name, device)
