"""Save a trained model as a folder, and load it: weights in safetensors, spec and card in JSON. Nothing is unpickled."""

import json
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from uvb.errors import UserError, one_line
from uvb.models.base import Estimator
from uvb.models.registry import build_model, code_changed, get_model
from uvb.regular import regular
from uvb.spec import RunSpec

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # dtypes in which weights may be stored
MATCHING = "use the weights and the spec.json of one training"


def save_model(model: Estimator, spec: RunSpec, folder: str | Path, card: dict[str, Any] | None = None) -> Path:
    """Write model.safetensors, spec.json and card.json into `folder`. Return the folder.

    Args:
        card: facts for people about the model. card.json has these facts and a hash of the model's code.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(storable(model.state_dict()), folder / "model.safetensors")
    (folder / "spec.json").write_text(json.dumps(spec.to_json(), indent=2))
    (folder / "card.json").write_text(json.dumps((card or {}) | {"code": get_model(spec.model).code}, indent=2))
    return folder


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make tensors detached, contiguous and on the CPU, for safetensors. Copy tensors that share memory (tied weights)."""
    stored, seen = {}, set()
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        memory = kept.untyped_storage().data_ptr()
        stored[name] = kept.clone() if memory in seen else kept
        seen.add(memory)
    return stored


def load_spec(folder: str | Path) -> RunSpec:
    """The spec of the model in `folder`. Raises `UserError` if there is none."""
    path = Path(folder) / "spec.json"
    try:
        return RunSpec.from_json(json.loads(_text(path)))
    except (OSError, ValueError, RecursionError, UserError) as error:  # RecursionError: JSON nested thousands deep
        why = one_line(error) if isinstance(error, UserError) else f"{type(error).__name__} while reading spec.json"
        raise UserError(
            f"{folder} holds no trained model ({why}); give a folder with "
            "model.safetensors and spec.json, such as a study's models/<spec_id>/model"
        ) from error


def _text(path: Path) -> str:
    return regular(path).read_text()


def _card(folder: str | Path) -> dict[str, Any]:
    try:
        card = json.loads(_text(Path(folder) / "card.json"))
    except (OSError, ValueError, RecursionError):  # a model is complete without its card
        return {}
    return card if isinstance(card, dict) else {}


def load(folder: str | Path, device: str = "cpu") -> Estimator:
    """Load the estimator (or energy) in `folder`, in evaluation mode. Its attribute `spec` is set.

    Weights that are stored in half precision become float32. If the model's code has changed since training, give a warning.

    Raises:
        UserError: the folder holds no model, the weights or σ do not fit the spec, or a weight is not finite.
    """
    spec = load_spec(folder)
    path = Path(folder) / "model.safetensors"
    _require_fitting(spec, path)
    try:
        model = build_model(spec)
    except UserError:
        raise
    except Exception as error:  # a plug-in's code may raise anything
        raise _unbuildable(path, error) from error
    try:
        weights = load_file(path)
        _require_floats(weights, model)
        dtypes = {weights[name].dtype for name, _ in model.named_parameters() if name in weights}
        stored = max(dtypes, key=lambda dtype: dtype.itemsize, default=torch.float32)
        model.to(stored if stored.itemsize > 2 else torch.float32).load_state_dict(weights)
    except Exception as error:  # safetensors has its own exception types, load_state_dict raises RuntimeError
        raise UserError(f"the weights in {folder} cannot be loaded: {one_line(error)}") from error
    if broken := [name for name, weight in weights.items() if not bool(weight.isfinite().all())]:
        raise UserError(f"the weights in {folder} are not finite ({broken[0]}); train the model again, at a lower rate")
    sigma = weights.get("sigma")
    if sigma is not None and not math.isclose(float(sigma), spec.sigma, rel_tol=0.01):  # σ may be stored in half precision
        raise UserError(f"the weights in {folder} have σ = {float(sigma):g}, but its spec.json says {spec.sigma:g}; {MATCHING}")
    if code_changed(spec.model, _card(folder).get("code")):
        warnings.warn(f"the code of {spec.model} has changed since {folder} was trained: results may differ", stacklevel=2)
    model.spec = spec
    return model.to(device).eval().requires_grad_(False)


def _require_floats(weights: Mapping[str, Tensor], model: Estimator) -> None:
    """Raise ValueError if the file has integers where the model has floats, or the reverse. PyTorch would convert silently."""
    for name, own in model.state_dict().items():
        if name in weights and (weights[name].dtype in FLOATS) != (own.dtype in FLOATS):
            raise ValueError(f"{name} is stored as {weights[name].dtype}, but the model has {own.dtype}")


def _require_fitting(spec: RunSpec, path: Path) -> None:
    """Raise `UserError` unless the file of weights has the tensors and shapes of the spec's model. Read only the header."""
    try:
        with safe_open(regular(path), framework="pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise UserError(f"the weights in {path.parent} cannot be loaded: {one_line(error)}") from error
    try:
        with torch.device("meta"):  # allocates nothing
            wanted = {name: tuple(t.shape) for name, t in build_model(spec).state_dict().items()}
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OverflowError) or re.search("overflow|too large|out of range|negative", str(error).lower()):
            raise _unbuildable(path, error) from error
        return  # a plug-in may not support the meta device; later load_state_dict compares the shapes
    unlike = sorted(name for name in stored.keys() | wanted if stored.get(name) != wanted.get(name))
    if unlike:
        name = unlike[0]
        raise UserError(
            f"the weights in {path.parent} do not fit its spec.json: {name} is {stored.get(name, 'absent')}, "
            f"but the spec needs {wanted.get(name, 'none')}; {MATCHING}"
        )


def _unbuildable(weights: Path, error: Exception) -> UserError:
    return UserError(f"{weights.parent}/spec.json asks for a model that cannot be built: {one_line(error)}")
