"""Helpers for the tests of data sets: images, functions that write them, and checks of messages."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.support.builders import ROOT
from uvb.data import ImageSet, load_dataset
from uvb.errors import UserError

SHARED = ROOT.parent / "shared" / "data"
needs_mnist = pytest.mark.skipif(not (SHARED / "MNIST/raw").is_dir(), reason="no ../shared/data/MNIST beside the project")
needs_cifar = pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="no ../shared/data/cifar10 beside the project")


def fails(what: str, *args: Any, **kwargs: Any) -> None:
    """Check that loading raises a UserError of one line that matches `what`."""
    with pytest.raises(UserError, match=what) as caught:
        load_dataset(*map(str, args), **kwargs)
    assert "\n" not in str(caught.value)


def warned(images: ImageSet, what: str) -> bool:
    """Whether a warning in the report of `images` contains `what`."""
    assert images.report is not None
    return any(what in line for line in images.report.warnings)


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    """The bytes of a picture file, made from an (H, W) or (H, W, C) array."""
    file = io.BytesIO()
    picture = Image.fromarray(array)
    if mode:
        picture = picture.convert(mode)
    picture.save(file, kind, **options)
    return file.getvalue()


def png(array: np.ndarray) -> bytes:
    """The bytes of a PNG file, made from an (H, W) or (H, W, 3) array."""
    return encoded(array)


def put(path: Path, content: bytes) -> Path:
    """Write a file, and make the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_classes(folder: Path, count: int, *names: str, seed: int = 0) -> None:
    """For each class, make a sub-folder and write `count` random 4×4 pictures into it."""
    for number, name in enumerate(names):
        for index, array in enumerate(pixels(count, 4, 4, seed=100 * seed + number)):
            put(folder / name / f"{index:03}.png", png(array))


def write_parquet(path: Path, images: list[bytes | None], column: str = "image", **columns: Any) -> Path:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    structs = pa.array([{"bytes": image, "path": None} for image in images], kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: structs, **columns}), path)
    return path


def seed_zero_order(count: int) -> np.ndarray:
    """The order in which the readers shuffle `count` images of a user."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()


def same_images(a: ImageSet, b: ImageSet) -> bool:
    return torch.equal(a.train, b.train) and torch.equal(a.test, b.test)
