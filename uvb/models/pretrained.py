"""Models that ship with the package, by name."""

from pathlib import Path

from uvb.errors import UserError
from uvb.models.base import Estimator
from uvb.models.io import load

SHIPPED = Path(__file__).resolve().parent.parent / "shipped"  # one folder a model, with a card in README.md


def pretrained_names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/model.safetensors"))


def pretrained_folder(name: str) -> Path:
    """The folder of the shipped model `name`.

    Raises:
        UserError: no model of that name ships.
    """
    if name not in pretrained_names():
        raise UserError(f"no shipped model {name!r}; choose one of: {', '.join(pretrained_names())}")
    return SHIPPED / name


def pretrained(name: str, device: str = "cpu") -> Estimator:
    """Load the shipped model `name`, in evaluation mode. Its weights are stored in bfloat16 and computed with in float32.

    ```python
    energy = uvb.pretrained("mnist-uvb")
    ```

    Raises:
        UserError: no model of that name ships.
    """
    return load(pretrained_folder(name), device)
