"""The fast decoder gives the usual decoder's pixels for a plain PNG. It leaves all other pictures to the usual decoder."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support.data_helpers import encoded, pixels
from uvb.data.readers.decode import decode
from uvb.data.readers.png import decode_plain_png

# A PNG encoder chooses other row filters for smooth images.
SMOOTH = np.add.outer(np.arange(40) * 3, np.arange(30) * 5).astype(np.uint8)


@pytest.mark.parametrize("array", [pixels(1, 40, 30)[0], pixels(1, 40, 30, 3)[0], SMOOTH, np.stack([SMOOTH] * 3, -1)])
@pytest.mark.parametrize("options", [{}, {"compress_level": 0}, {"optimize": True}])
def test_decode_plain_png_gives_the_pixels_of_decode(array: np.ndarray, options: dict[str, object]) -> None:
    content = encoded(array, **options)
    found = decode_plain_png(content, (40, 30))
    assert found is not None
    assert np.array_equal(found, decode(content, "x"))


def test_decode_plain_png_ignores_text() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("author", "somebody")
    assert decode_plain_png(encoded(SMOOTH, pnginfo=info), (40, 30)) is not None


@pytest.mark.parametrize(
    "content",
    [
        encoded(SMOOTH.astype(np.uint16)),
        encoded(SMOOTH, mode="LA"),
        encoded(SMOOTH, mode="P"),
        encoded(SMOOTH, transparency=0),
        encoded(SMOOTH, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
        encoded(SMOOTH)[:-20],
        encoded(SMOOTH)[:60],
        encoded(SMOOTH, "JPEG"),
        b"",
    ],
    ids=["16 bit", "alpha", "palette", "transparent colour", "EXIF", "no end", "truncated", "JPEG", "empty"],
)
def test_decode_plain_png_leaves_other_pictures_alone(content: bytes) -> None:
    assert decode_plain_png(content, (40, 30)) is None


def test_decode_plain_png_leaves_damage_and_other_sizes_alone() -> None:
    content = bytearray(encoded(SMOOTH))
    assert decode_plain_png(bytes(content), (30, 40)) is None
    at = content.index(b"IDAT") + 20
    content[at] ^= 255
    assert decode_plain_png(bytes(content), (40, 30)) is None


def test_decode_plain_png_leaves_several_frames_alone() -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(frame) for frame in pixels(2, 4, 4)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert decode_plain_png(file.getvalue(), (4, 4)) is None
