"""What the decoder makes of each kind of picture, and what it refuses before it takes memory."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.data_helpers import encoded, pixels
from uvb.data.readers.decode import AS_IT_IS, Decoding, Target, decode
from uvb.errors import UserError

GREY = pixels(1, 6, 5)[0]
COLOUR = pixels(1, 6, 5, 3)[0]


def refused(what: str, content: bytes, decoding: Decoding = AS_IT_IS) -> None:
    with pytest.raises(UserError, match=what) as caught:
        decode(content, "x", decoding)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        encoded(GREY),
        encoded(GREY.astype(np.uint16) * 257),
        encoded(GREY.astype(np.uint16) * 257, "TIFF"),
        encoded(GREY.astype(np.uint16) * 257, "PPM"),
        encoded(GREY.astype(np.float32) / 255, "TIFF"),
        encoded(GREY, mode="LA"),
        encoded(GREY, mode="P"),
        encoded(GREY, "GIF"),
    ],
    ids=["8 bit", "16 bit", "16-bit TIFF", "16-bit PGM", "floats", "opaque alpha", "palette", "GIF"],
)
def test_decode_gives_the_same_grey_for_every_way_to_store_it(content: bytes) -> None:
    assert np.array_equal(decode(content, "x"), GREY[None])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_decode_gives_colours_channels_first(mode: str) -> None:
    assert np.array_equal(decode(encoded(COLOUR, mode=mode), "x"), COLOUR.transpose(2, 0, 1))


def test_decode_converts_cmyk() -> None:
    red = decode(encoded(np.full((4, 4, 3), (255, 0, 0), np.uint8), "JPEG", mode="CMYK", quality=95), "x")
    assert red.shape == (3, 4, 4)
    assert red[0].min() > 200
    assert red[1:].max() < 60


def test_decode_composites_transparent_pictures_on_the_background() -> None:
    """Half-transparent grey 200 is 200 + 55 · (1 - 128/255) on white and 200 · 128/255 on black.

    A fully transparent pixel takes the colour of the background.
    """
    array = np.array([[[200, 128], [200, 0]]], np.uint8)
    picture = io.BytesIO()
    Image.fromarray(array, "LA").save(picture, "PNG")
    on_white = decode(picture.getvalue(), "x", Decoding(background="white"))
    on_black = decode(picture.getvalue(), "x", Decoding(background="black"))
    assert np.abs(on_white[0, 0].astype(int) - [227, 255]).max() <= 1
    assert np.abs(on_black[0, 0].astype(int) - [100, 0]).max() <= 1
    refused("x is partly transparent; .*--background black, or white", picture.getvalue())


def test_decode_refuses_a_transparent_colour_without_a_background() -> None:
    content = encoded(np.zeros((2, 2), np.uint8), transparency=0)
    refused("transparent", content)
    assert decode(content, "x", Decoding(background="white")).min() == 255


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_decode_turns_pictures_upright(orientation: int, turns: int) -> None:
    """`turns` is the number of clockwise quarter turns that the EXIF orientation asks for."""
    exif = Image.Exif()
    exif[274] = orientation  # the tag of the orientation
    lossless = encoded(np.rot90(COLOUR, turns).copy(), "WEBP", lossless=True, exif=exif)
    assert np.array_equal(decode(lossless, "x"), COLOUR.transpose(2, 0, 1))
    assert decode(lossless, "x", target=Target("first", (3, 6, 5), True)).shape == (3, 6, 5)


def test_decode_resizes_the_shorter_side_and_crops_the_middle() -> None:
    stripes = np.repeat(np.array([0, 100, 200], np.uint8), 8)[None].repeat(8, 0)  # 8 × 24: three squares
    assert decode(encoded(stripes), "x", Decoding(resize=4)).shape == (1, 4, 12)
    middle = decode(encoded(stripes), "x", Decoding(center_crop=True))
    assert middle.shape == (1, 8, 8)
    assert np.unique(middle).tolist() == [100]


def test_decode_refuses_a_declared_size_before_it_decodes() -> None:
    """A PNG of a few bytes declares 50,000 × 50,000 pixels in its header."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    refused("50000×50000; at most 89,478,485 pixels|exceeds limit", bomb + b"\0\0\0\0IDAT")
    with pytest.raises(UserError, match="x is 5×6 grey, but first is 5×5 RGB; all images must have one size"):
        decode(encoded(GREY), "x", target=Target("first", (3, 5, 5), True))


def test_decode_refuses_several_frames() -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(frame) for frame in pixels(3, 4, 4)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    refused("x has 3 frames, but a picture must have one; save one frame", file.getvalue())


# This TIFF stores 16 bits a pixel, but its tag 258 says 12 (type 3: a 16-bit number). 12-bit white is 1/16 of 16-bit white.
TWELVE_BITS = encoded(GREY.astype(np.uint16), "TIFF").replace(
    struct.pack("<HHII", 258, 3, 1, 16), struct.pack("<HHII", 258, 3, 1, 12)
)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "not an image that can be read; give PNG"),
        (b"", "not an image that can be read"),
        (encoded(GREY)[:-30], "not an image that can be read .*truncated"),
        (encoded(COLOUR, "JPEG")[:100], "not an image that can be read"),
        (
            encoded(GREY.astype(np.int32), "TIFF"),
            "has signed integers of 32 bits, so its white is unknown; save it with 8 or 16",
        ),
        (TWELVE_BITS, "has integers of 12 bits, so its white is unknown"),
        (encoded(GREY.astype(np.float32), "TIFF"), "has floats from .*scale them to"),
        (encoded(np.full((2, 2), np.nan, np.float32), "TIFF"), "has NaN"),
    ],
    ids=[
        "PostScript",
        "empty",
        "truncated PNG",
        "truncated JPEG",
        "32-bit integers",
        "12-bit integers",
        "floats of 255",
        "NaN",
    ],
)
def test_decode_refuses_each_fault_in_one_line(content: bytes, what: str) -> None:
    refused(what, content)


def test_decode_never_starts_a_postscript_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    for name in ("a.png", "a.eps", "a.jpg"):
        (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
        with pytest.raises(UserError, match="not an image"):
            decode(tmp_path / name, name)
