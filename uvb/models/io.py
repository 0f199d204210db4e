"""A trained model as a folder: weights in safetensors, its spec and a card in JSON. Loading runs no pickled code."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from uvb.errors import UserError
from uvb.models.base import Estimator
from uvb.models.registry import build_model, code_changed, get_model
from uvb.spec import RunSpec


def save_model(model: Estimator, spec: RunSpec, folder: str | Path, card: dict[str, Any] | None = None) -> Path:
    """Write model.safetensors, spec.json and card.json (whatever a reader should know, and a hash of the model's code) into
    `folder`; returns it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(storable(model.state_dict()), folder / "model.safetensors")
    (folder / "spec.json").write_text(json.dumps(spec.to_json(), indent=2))
    (folder / "card.json").write_text(json.dumps((card or {}) | {"code": get_model(spec.model).code}, indent=2))
    return folder


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors takes: detached, contiguous, on the CPU, and none sharing memory with another, as tied weights do."""
    stored, seen = {}, set()
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        memory = kept.untyped_storage().data_ptr()
        stored[name] = kept.clone() if memory in seen else kept
        seen.add(memory)
    return stored


def load_spec(folder: str | Path) -> RunSpec:
    """The spec of the model in `folder`.

    Raises:
        UserError: there is none.
    """
    path = Path(folder) / "spec.json"
    try:
        return RunSpec.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, UserError) as error:
        raise UserError(
            f"{folder} holds no trained model ({type(error).__name__} reading spec.json); give a folder with "
            "model.safetensors and spec.json, as a study writes to models/<spec_id>/model"
        ) from error


def _card(folder: str | Path) -> dict[str, Any]:
    try:
        card = json.loads((Path(folder) / "card.json").read_text())
    except (OSError, ValueError):  # a card is a help, and no part of the model
        return {}
    return card if isinstance(card, dict) else {}


def load(folder: str | Path, device: str = "cpu") -> Estimator:
    """The estimator (or energy) in `folder`, in evaluation mode, with its `spec` as an attribute.

    Warns where the model's code is another than it was trained with.

    Raises:
        UserError: the folder holds no model, or its weights do not fit its spec.
    """
    spec = load_spec(folder)
    model = build_model(spec)
    try:
        weights = load_file(Path(folder) / "model.safetensors")
        dtypes = {weights[name].dtype for name, _ in model.named_parameters() if name in weights}
        model.to(max(dtypes, key=lambda dtype: dtype.itemsize)).load_state_dict(weights)
    except Exception as error:  # safetensors has its own exception types, load_state_dict raises RuntimeError
        raise UserError(f"the weights in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    if code_changed(spec.model, _card(folder).get("code")):
        warnings.warn(f"the code of {spec.model} has changed since {folder} was trained: this is another model", stacklevel=2)
    model.spec = spec
    return model.to(device).eval().requires_grad_(False)
