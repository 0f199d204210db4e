"""What the tests of data sets share: images to write, and the one line a refusal is."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.builders import ROOT
from uvb.data import load_dataset
from uvb.errors import UserError

SHARED = ROOT.parent / "shared" / "data"
needs_mnist = pytest.mark.skipif(not (SHARED / "MNIST/raw").is_dir(), reason="no ../shared/data/MNIST beside the project")
needs_cifar = pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="no ../shared/data/cifar10 beside the project")


def fails(what: str, *args: Any, **kwargs: Any) -> None:
    """Loading raises a UserError of one line that matches `what`."""
    with pytest.raises(UserError, match=what) as caught:
        load_dataset(*map(str, args), **kwargs)
    assert "\n" not in str(caught.value)


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def png(array: np.ndarray) -> bytes:
    """PNG of an (H, W) or (H, W, 3) array."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def seed_zero_order(count: int) -> np.ndarray:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
