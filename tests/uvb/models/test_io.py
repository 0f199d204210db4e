"""`load` refuses a folder if its spec and its weights do not fit together, or if they are damaged."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import uvb
from tests.support.builders import TINY, tiny_spec
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models import io
from uvb.models.base import Estimator
from uvb.models.registry import MODELS, Model
from uvb.spec import Shape, Widths


@pytest.fixture
def folder(digits: ImageSet, tmp_path: Path) -> Path:
    spec = tiny_spec(digits)
    return uvb.save_model(uvb.build_model(spec), spec, tmp_path / "model")


def rewrite(folder: Path, **widths: object) -> None:
    blob = json.loads((folder / "spec.json").read_text())
    blob["widths"] |= widths
    (folder / "spec.json").write_text(json.dumps(blob))


class Largest(TorchDispatchMode):
    """After a block, `numbers` is the size of the largest tensor in memory that an operation in the block returned."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self.numbers = max(self.numbers, tensor.numel())
        return found


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        uvb.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FIT, BUILT = "do not fit its spec.json", "a model that cannot be built"


@pytest.mark.parametrize(("hidden", "said"), [(10**6, FIT), (10**9, FIT), (10**18, BUILT)])
def test_load_refuses_widths_unlike_the_weights_without_allocating_them(folder: Path, hidden: int, said: str) -> None:
    """A spec of terabytes takes no memory, because its shapes are first compared with the file's header."""
    with Largest() as usual:
        uvb.load(folder)
    rewrite(folder, hidden=hidden)
    with Largest() as largest:
        assert said in refused(folder)
    assert largest.numbers <= usual.numbers
    assert 1000 < usual.numbers < 10_000


def test_load_names_the_weight_that_does_not_fit(folder: Path) -> None:
    rewrite(folder, decoder=8)
    assert "decoder" in refused(folder)


@pytest.mark.parametrize(("reader", "error"), [("load_file", MemoryError()), ("safe_open", OSError())])
def test_load_names_the_type_of_an_error_without_a_message(
    folder: Path, reader: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(io, reader, fail)
    assert refused(folder).endswith(f"cannot be loaded: {type(error).__name__}")


class Plain(Estimator):
    """An estimator without parameters."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(sigma)

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        return y


class ReadsValues(Plain):
    """Its constructor reads a value, so it cannot be built on the meta device."""

    def __init__(self, shape: Shape, widths: Widths, activation: str, sigma: float) -> None:
        super().__init__(shape, widths, activation, sigma)
        self.scale = torch.nn.Parameter(torch.full((), float(torch.ones(()))))


@pytest.fixture
def plain(digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS.known, "mine", Model("mine", Plain, TINY))
    spec = dataclasses.replace(tiny_spec(digits), model="mine")
    return uvb.save_model(uvb.build_model(spec), spec, tmp_path / "plain")


def test_load_takes_a_model_without_parameters(plain: Path) -> None:
    assert isinstance(uvb.load(plain), Plain)


@pytest.mark.filterwarnings("ignore:the code of mine has changed")
def test_load_names_the_missing_weight_of_a_file_without_parameters(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS.known, "mine", Model("mine", ReadsValues, TINY))
    assert re.search("cannot be loaded: .*Missing key.*scale", refused(plain))


def test_load_refuses_weights_that_are_not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = sorted(name for name, weight in weights.items() if weight.numel() > 1)[0]
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    assert f"not finite ({name})" in refused(folder)


def test_load_refuses_weights_of_another_sigma(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"sigma": 2 * weights["sigma"]}, folder / "model.safetensors")
    assert f"have σ = {2 * float(weights['sigma']):g}" in refused(folder)


def test_load_refuses_json_nested_thousands_deep(folder: Path) -> None:
    (folder / "spec.json").write_text("[" * 100_000 + "]" * 100_000)
    assert "holds no trained model" in refused(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bool, torch.complex64, torch.int32])
def test_load_refuses_weights_that_are_not_plain_floats(folder: Path, dtype: torch.dtype) -> None:
    """PyTorch would take booleans and complex numbers for floats, and cannot tell whether 8-bit floats are finite."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight.to(dtype) for name, weight in weights.items()}, folder / "model.safetensors")
    assert f"is stored as {dtype}" in refused(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": ["uvb"]}, r"Expected `str`, got `array` - at `\$.model`"),
        ({"seed": 1.5}, r"at `\$.seed`"),
        ({"seed": 2**70}, r"at `\$.seed`"),
        ({"sigma": "one"}, r"at `\$.sigma`"),
        ({"activation": 7}, r"at `\$.activation`"),
        ({"widths": None}, r"at `\$.widths`"),
        ({"data": {"name": "digits", "checksum": "0", "shape": [8, 8], "train_images": 2}}, r"at `\$.data.shape`"),
        ({"widths": {"conv": [-5], "hidden": 3, "latent": 2, "decoder": 4}}, "a model that cannot be built: .*negative"),
    ],
)
def test_load_refuses_specs_of_wrong_types(folder: Path, changes: dict[str, Any], said: str) -> None:
    blob = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(blob | changes))
    assert re.search(said, refused(folder))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["spec.json", "model.safetensors"])
def test_load_refuses_a_pipe_at_once(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "cannot be loaded" in refused(folder) or "holds no trained model" in refused(folder)


def test_load_ignores_a_card_that_is_a_pipe(folder: Path) -> None:
    (folder / "card.json").unlink()
    os.mkfifo(folder / "card.json")
    uvb.load(folder)
