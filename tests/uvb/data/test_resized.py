"""Named data sets, resized."""

from pathlib import Path

import pytest
import torch

from uvb.data import ImageSet, load_dataset
from uvb.data.readers.decode import Decoding
from uvb.data.readers.own import ReadOptions
from uvb.data.resized import resized
from uvb.errors import UserError


def test_resized_takes_the_mean_of_the_pixels_it_covers() -> None:
    pixels = torch.tensor([[0, 1, 10, 10], [2, 3, 10, 10], [0, 0, 255, 255], [0, 2, 255, 255]], dtype=torch.uint8)
    images = ImageSet("squares", pixels.view(1, 1, 4, 4), pixels.flip(1).view(1, 1, 4, 4), torch.tensor([3]))
    half = resized(images, 2)
    assert half.train[0, 0].tolist() == [[2, 10], [1, 255]]  # 1.5 and 0.5 are rounded up
    assert half.test[0, 0].tolist() == [[10, 2], [255, 1]]
    assert (half.name, half.shape, half.train_labels.tolist()) == ("squares-2", (1, 2, 2), [3])
    assert half.checksum != images.checksum
    assert resized(images, 4) is images


def test_load_dataset_resizes_a_named_set_and_reports_the_new_size() -> None:
    digits = load_dataset("digits", "unused", options=ReadOptions(decoding=Decoding(resize=4)))
    assert digits.shape == digits.report.shape == (1, 4, 4)
    assert (digits.name, digits.levels, len(digits.test)) == ("digits-4", 16, 297)


def test_load_dataset_refuses_to_crop_a_named_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="decoding: only for your own images"):
        load_dataset("digits", tmp_path, options=ReadOptions(decoding=Decoding(resize=4, center_crop=True)))
