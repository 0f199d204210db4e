"""Decode an encoded picture to uint8 pixels. All commands use this decoder."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from uvb.data.readers.png import decode_plain_png
from uvb.errors import UserError, one_line
from uvb.regular import regular

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow decodes by itself. PostScript is left out, because Pillow would start an interpreter for it."""

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"))

MAX_PIXELS = 89_478_485
"""A picture with more pixels is refused before it is decoded. Pillow warns above the same size."""

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
_ORIENTATION = 0x0112  # the EXIF tag
_BITS, _FORMAT = 258, 339  # TIFF's tags: bits of a pixel, and kind of number (1: integers without a sign)

# `_check` refuses pictures that are too large, so Pillow's warning would only repeat the error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Decoding:
    """How a picture becomes pixels.

    Attributes:
        resize: pixels of the shorter side. The aspect ratio stays the same. 0: do not resize.
        center_crop: cut out the central square.
        background: the colour behind a transparent picture. "": refuse transparent pictures.
    """

    resize: int = 0
    center_crop: bool = False
    background: Literal["", "black", "white"] = ""


AS_IT_IS = Decoding()


class Target(NamedTuple):
    """The shape that every picture must have. The first picture sets it.

    Attributes:
        where: how error messages name the first picture.
        shape: (C, H, W).
        settled: False if C = 3 is a guess, because the first picture is in RGB mode but looks grey. It may be a grey WebP: WebP
            has no grey mode. Then a later picture in grey mode changes C to 1. A picture in colour always changes C to 3.
    """

    where: str
    shape: tuple[int, int, int]
    settled: bool


def decode(content: bytes | Path, where: str, decoding: Decoding = AS_IT_IS, target: Target | None = None) -> NDArray[np.uint8]:
    """Decode one picture to uint8 (C, H, W): C = 1 if it is grey, 3 if it is in colour.

    EXIF orientation is applied. 16-bit grey and floats in [0, 1] are rounded to 255 levels. Palettes, CMYK, YCbCr and HSV
    become RGB. An opaque alpha channel is dropped. A transparent picture is composited on ``decoding.background``.

    Args:
        content: the encoded bytes, or the path of the file.
        where: how error messages name the picture.
        target: the picture must have the height and width of `target`. A picture of another size is refused, if possible
            before it is decoded.

    Raises:
        UserError: the picture cannot be decoded, is too large, is animated, is transparent (without a background), has an
            unknown mode, or does not have the size of `target`.
    """
    if isinstance(content, bytes) and target is not None and decoding == AS_IT_IS:
        plain_png = decode_plain_png(content, target.shape[1:])
        if plain_png is not None:
            return plain_png
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else regular(content), formats=FORMATS) as picture:
            _check(picture, where, target if decoding == AS_IT_IS else None)
            picture.load()
            if "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) != 1:
                ImageOps.exif_transpose(picture, in_place=True)
            plain = _fitted(_eight_bit(picture, where, decoding.background), decoding)
    except UnidentifiedImageError:
        raise UserError(f"{where} is not an image that can be read; give {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{where} is not an image that can be read ({one_line(error)})") from error
    array = np.asarray(plain)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if target is not None and array.shape[1:] != target.shape[1:]:
        raise _odd_size(where, array.shape, target)
    return array


def to_levels(floats: NDArray[Any], where: str, hint: str = "") -> NDArray[np.uint8]:
    """Round floats in [0, 1] to 255 levels.

    Args:
        hint: further advice at the end of the message about values outside [0, 1].

    Raises:
        UserError: a value is not finite, or outside [0, 1].
    """
    if not np.isfinite(floats).all():
        raise UserError(f"{where} has NaN or infinite values; floats in [0, 1] are needed")
    low, high = float(floats.min()), float(floats.max())
    if low < 0 or high > 1:
        raise UserError(f"{where} has floats from {low:g} to {high:g}; scale them to [0, 1]{hint}")
    levels: NDArray[np.uint8] = np.rint(floats * floats.dtype.type(255)).astype(np.uint8)
    return levels


def _check(picture: Image.Image, where: str, target: Target | None) -> None:
    """Check the picture's header before its pixels take memory."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise UserError(f"{where} is {width}×{height}; at most {MAX_PIXELS:,} pixels are allowed, so make it smaller")
    if target is not None and target.shape[1:] not in ((height, width), (width, height)):  # EXIF may rotate the picture
        raise _odd_size(where, (1 if picture.mode in (*_GREY, "I;16", "I", "F") else 3, height, width), target)
    if isinstance(picture, TiffImageFile) and picture.mode.startswith("I"):
        bits, kind = (picture.tag_v2.get(tag, (1,))[0] for tag in (_BITS, _FORMAT))
        if (bits, kind) != (16, 1):
            signed = "" if kind == 1 else "signed "
            raise UserError(
                f"{where} has {signed}integers of {bits} bits, so its white is unknown; save it with 8 or 16 unsigned bits"
            )
    if picture.format in ("GIF", "WEBP", "PNG", "TIFF") and (frames := getattr(picture, "n_frames", 1)) > 1:
        raise UserError(f"{where} has {frames} frames, but a picture must have one; save one frame as a picture")


def _odd_size(where: str, shape: tuple[int, ...], target: Target) -> UserError:
    odd, first = (f"{width}×{height} {'grey' if channels == 1 else 'RGB'}" for channels, height, width in (shape, target.shape))
    return UserError(
        f"{where} is {odd}, but {target.where} is {first}; all images must have one size: give --resize N with --center-crop"
    )


def _eight_bit(picture: Image.Image, where: str, background: str) -> Image.Image:
    """The picture in mode L or RGB, without transparency."""
    mode = picture.mode
    if mode.startswith("I"):
        return Image.fromarray(_from_integers(np.asarray(picture)))
    if mode == "F":
        return Image.fromarray(to_levels(np.asarray(picture, np.float64), where))
    if mode in ("P", "PA"):
        palette = np.asarray(picture.getpalette() or [0, 0, 0]).reshape(-1, 3)
        grey = bool((palette == palette[:, :1]).all())
    elif mode in _GREY + _COLOUR:
        grey = mode in _GREY
    else:
        raise UserError(f"{where} has the unknown mode {mode}; convert the picture to 8-bit grey or RGB")
    plain = "L" if grey else "RGB"
    if not picture.has_transparency_data:
        return picture if mode == plain else picture.convert(plain)
    picture = picture.convert("LA" if mode in _GREY else "RGBA")
    alpha = picture.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return picture.convert(plain)
    if not background:
        raise UserError(f"{where} is partly transparent; choose the colour behind it: --background black, or white")
    below = Image.new(plain, picture.size, background)
    below.paste(picture.convert(plain), mask=alpha)
    return below


def _from_integers(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Round integers from 0 to 65535 to 255 levels."""
    wide = values.astype(np.int64)
    return ((wide * 255 + 32767) // 65535).astype(np.uint8)  # adding half of 65535 rounds to the nearest level


def _fitted(picture: Image.Image, decoding: Decoding) -> Image.Image:
    """Resize and crop the picture. A picture that already has the right size is returned as it is."""
    if decoding.resize and min(picture.size) != decoding.resize:
        scale = decoding.resize / min(picture.size)
        width, height = (max(decoding.resize, round(side * scale)) for side in picture.size)
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width}×{height} after --resize is too large")
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    if decoding.center_crop and picture.width != picture.height:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    return picture
