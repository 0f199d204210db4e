"""The synthetic images of the benchmark of data sets."""

import numpy as np
import torch

from benchmarks.cpu.data import FULL, MadeAgain, made, write_set
from uvb.data import ImageSet


def test_synthetic_images_differ_and_can_be_made_again(tmp_path):
    """The benchmark compares losses on a stored set with losses on images made in memory, so their images must be equal."""
    checksum = write_set(tmp_path / "a.safetensors", 3000, test=1000)
    images = ImageSet.load(tmp_path / "a.safetensors")
    assert images.checksum == checksum
    assert torch.equal(images.train, MadeAgain()[torch.arange(2000)])
    rows = np.arange(0, FULL["large"], 1009)
    assert len(np.unique(made(rows).reshape(-1, 3072), axis=0)) == len(rows)
