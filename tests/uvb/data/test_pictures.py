"""Pictures and arrays for a trained model."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.data_helpers import encoded, pixels, put
from uvb.data.readers.decode import Decoding
from uvb.data.readers.pictures import noisy_images, read_pictures
from uvb.errors import UserError

SHAPE = (1, 8, 8)
GREY = pixels(1, 8, 8)[0]


def test_read_pictures_decodes_as_in_training(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encoded(GREY))
    put(tmp_path / "b.png", encoded(GREY.astype(np.uint16) * 257))
    put(tmp_path / "c.webp", encoded(GREY, "WEBP", lossless=True))
    put(tmp_path / ".hidden.png", b"x")
    images, names = read_pictures(tmp_path, SHAPE, sigma=1.0)
    assert names == ["a", "b", "c"]
    assert np.allclose(images.numpy() * 255, GREY, atol=1e-4)


def test_read_pictures_takes_the_background(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(np.zeros((8, 8, 4), np.uint8)))
    with pytest.raises(UserError, match="--background black, or white"):
        read_pictures(path, SHAPE, sigma=1.0)
    assert read_pictures(path, SHAPE, 1.0, Decoding(background="white"))[0].min() == 1


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 8, 1), (3, 8, 8), (3, 1, 8, 8), (3, 8, 8, 1)])
def test_noisy_images_takes_a_grey_channel_that_is_missing_or_last(shape: tuple[int, ...]) -> None:
    images = noisy_images(np.full(shape, 51, np.uint8), "it", SHAPE, 1.0)
    assert images.shape[1:] == SHAPE
    assert np.allclose(images.numpy(), 0.2)


def test_noisy_images_takes_colours_last() -> None:
    array = pixels(2, 4, 6, 3)
    last, first = noisy_images(array, "it", (3, 4, 6), 1.0), noisy_images(array.transpose(0, 3, 1, 2), "it", (3, 4, 6), 1.0)
    assert np.array_equal(last.numpy(), first.numpy())


def test_noisy_images_keeps_noise_and_refuses_other_units() -> None:
    noisy = (np.random.default_rng(0).normal(0.5, 1, (4, *SHAPE))).astype(np.float32)
    assert np.array_equal(noisy_images(noisy, "it", SHAPE, 1.0).numpy(), noisy)
    for wrong, what in (
        (GREY[None, None].astype(float), "it has values from .*units of .*divide them by 255, or give uint8"),
        (GREY[None, None].astype(np.int64), "it is int64"),
        (np.full((1, *SHAPE), np.inf, np.float32), "NaN or infinite"),
        (np.zeros((0, *SHAPE), np.float32), "it is empty"),
        (np.zeros((1, 1, 8, 9), np.float32), r"it is \(1, 1, 8, 9\); this model takes \(N, 1, 8, 8\)"),
    ):
        with pytest.raises(UserError, match=what):
            noisy_images(wrong, "it", SHAPE, 1.0)
