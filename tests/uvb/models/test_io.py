"""`load` refuses a folder if its spec and its weights do not fit together, or if they are damaged."""

import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import uvb
from tests.support.builders import tiny_spec
from uvb.data import ImageSet
from uvb.errors import UserError


@pytest.fixture
def folder(digits: ImageSet, tmp_path: Path) -> Path:
    spec = tiny_spec(digits)
    return uvb.save_model(uvb.build_model(spec), spec, tmp_path / "model")


def rewrite(folder: Path, **widths: object) -> None:
    blob = json.loads((folder / "spec.json").read_text())
    blob["widths"] |= widths
    (folder / "spec.json").write_text(json.dumps(blob))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        uvb.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("hidden", [10**6, 10**9, 10**18])
def test_load_refuses_widths_unlike_the_weights_without_allocating_them(folder: Path, hidden: int) -> None:
    """A spec of terabytes takes no memory, because its shapes are first compared with the file's header."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rewrite(folder, hidden=hidden)
    assert "spec" in refused(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # KiB, so 200 MB. With hidden = 10**6 the weights take more than 500 MB


def test_load_names_the_weight_that_does_not_fit(folder: Path) -> None:
    rewrite(folder, decoder=8)
    assert "decoder" in refused(folder)


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
