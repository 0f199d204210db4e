"""One decoder for all commands: an encoded picture to uint8 pixels."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from uvb.data.readers.png import decode_plain_png
from uvb.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow decodes by itself. PostScript is not among them, so no interpreter is ever started."""

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"))

MAX_PIXELS = 89_478_485
"""A larger picture is refused before it is decoded. Pillow warns from the same size on."""

_AS_COLOUR = ("RGB", "CMYK", "YCbCr", "HSV")
_ORIENTATION = 0x0112  # the EXIF tag

# A picture above the limit is refused in one line, so Pillow's warning would say it twice.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Decoding:
    """What to do with a picture on the way to pixels.

    Attributes:
        resize: pixels of the shorter side; the aspect ratio is kept. 0 keeps the size.
        center_crop: cut out the central square.
        background: what a transparent picture is laid on. "" refuses transparent pictures.
    """

    resize: int = 0
    center_crop: bool = False
    background: Literal["", "black", "white"] = ""


AS_IT_IS = Decoding()


class First(NamedTuple):
    """The picture that all others must fit, and its (C, H, W)."""

    where: str
    shape: tuple[int, int, int]


def decode(
    content: bytes | Path, where: str, decoding: Decoding = AS_IT_IS, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Decode one picture to uint8 (C, H, W): C = 1 if it is grey, 3 if it is in colour.

    EXIF orientation is applied. 16-bit grey and floats in [0, 1] are rounded to 255 levels. Palettes, CMYK, YCbCr and HSV
    become RGB. Alpha is dropped where it is opaque, and else composited on ``decoding.background``.

    Args:
        content: the encoded bytes, or the file.
        where: what to call the picture in an error.
        size: (H, W) that the picture must have; another size is refused before it is decoded.

    Raises:
        OddSize: the picture has another size than `size`.
        UserError: it cannot be decoded, is too large, animated, transparent, or of an unknown kind.
    """
    if isinstance(content, bytes) and size is not None and decoding == AS_IT_IS:
        plain_png = decode_plain_png(content, size)
        if plain_png is not None:
            return plain_png
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=FORMATS) as picture:
            _check(picture, where, size if decoding == AS_IT_IS else None)
            picture.load()
            if "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) != 1:
                ImageOps.exif_transpose(picture, in_place=True)
            plain = _fitted(_eight_bit(picture, where, decoding), decoding)
    except UnidentifiedImageError:
        raise UserError(f"{where} is not an image that can be read; give {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{where} is not an image that can be read ({' '.join(str(error).split())})") from error
    array = np.asarray(plain)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if size is not None and array.shape[1:] != size:
        raise OddSize(where, array.shape)
    return array


class OddSize(Exception):
    """A picture that has not the size of the others; `shape` is its (C, H, W)."""

    def __init__(self, where: str, shape: tuple[int, ...]) -> None:
        super().__init__(where, shape)
        self.where, self.shape = where, shape


def describe(shape: tuple[int, ...]) -> str:
    """(C, H, W) in words, such as "32×32 RGB"."""
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"


def _check(picture: Image.Image, where: str, size: tuple[int, int] | None) -> None:
    """Look at what the header says, before memory is spent on the pixels."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise UserError(f"{where} is {width}×{height}; at most {MAX_PIXELS:,} pixels are read, so make it smaller")
    if size is not None and size not in ((height, width), (width, height)):  # EXIF may turn it
        raise OddSize(where, (1 if picture.mode in ("1", "L", "LA", "I;16", "I", "F") else 3, height, width))
    if picture.format in ("GIF", "WEBP", "PNG", "TIFF") and (frames := getattr(picture, "n_frames", 1)) > 1:
        raise UserError(f"{where} has {frames} frames; save the one that is meant as a picture of its own")


def _eight_bit(picture: Image.Image, where: str, decoding: Decoding) -> Image.Image:
    """The picture in mode L or RGB."""
    mode = picture.mode
    if mode in ("L", "RGB"):
        if "transparency" not in picture.info:  # one colour of a PNG may stand for "nothing here"
            return picture
        picture = picture.convert("RGBA" if mode == "RGB" else "LA")
    elif mode == "1":
        return picture.convert("L")
    elif mode.startswith("I"):
        return Image.fromarray(_from_integers(np.asarray(picture), where))
    elif mode == "F":
        return Image.fromarray(_from_floats(np.asarray(picture), where))
    elif mode == "P":
        palette = np.asarray(picture.getpalette() or [0, 0, 0]).reshape(-1, 3)
        grey = bool((palette == palette[:, :1]).all())
        clear = "transparency" in picture.info
        picture = picture.convert("RGBA" if clear else "RGB")
        if not clear:
            return picture.convert("L") if grey else picture
        picture = picture.convert("LA") if grey else picture
    elif mode in _AS_COLOUR:
        return picture.convert("RGB")
    if picture.mode in ("RGBa", "La"):  # colours that are multiplied by alpha already
        picture = picture.convert({"RGBa": "RGBA", "La": "LA"}[picture.mode])
    if picture.mode not in ("RGBA", "LA", "PA"):
        raise UserError(f"{where} has mode {mode}; convert the picture to 8-bit grey or RGB")
    return _composited(picture.convert("RGBA") if picture.mode == "PA" else picture, where, decoding.background)


def _composited(picture: Image.Image, where: str, background: str) -> Image.Image:
    """RGBA or LA without its alpha."""
    plain = "L" if picture.mode == "LA" else "RGB"
    alpha = picture.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return picture.convert(plain)
    if not background:
        raise UserError(f"{where} is transparent in places; say what lies behind it: --background black, or white")
    below = Image.new(plain, picture.size, "black" if background == "black" else "white")
    below.paste(picture.convert(plain), mask=alpha)
    return below


def _from_integers(values: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    wide = values.astype(np.int64)
    if wide.size and (wide.min() < 0 or wide.max() > 65535):
        raise UserError(f"{where} has integers from {wide.min()} to {wide.max()}; 8 or 16 bits (0 to 65535) are read")
    return ((wide * 255 + 32767) // 65535).astype(np.uint8)


def _from_floats(values: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    floats = values.astype(np.float64)
    if not np.isfinite(floats).all():
        raise UserError(f"{where} has NaN or infinite values; floats in [0, 1] are needed")
    if floats.size and (floats.min() < 0 or floats.max() > 1):
        raise UserError(f"{where} has floats from {floats.min():g} to {floats.max():g}; scale them to [0, 1]")
    return np.rint(floats * 255).astype(np.uint8)


def _fitted(picture: Image.Image, decoding: Decoding) -> Image.Image:
    """Resized and cropped as told; a picture that fits already is left as it is."""
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
