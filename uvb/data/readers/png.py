"""A fast decoder for the most common pictures: 8-bit grey or RGB PNGs without special features.

Pillow takes longer to open a small PNG than to decode it. So this code parses the file, and passes the compressed pixels to
Pillow's decoder by a private interface. If the interface is missing or the PNG is not plain, this code returns None. Then the
caller opens the PNG with Pillow.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER = 13 + 4  # bytes after _START: the header and its CRC
_MODES = {0: ("L", 1), 2: ("RGB", 3)}  # the PNG's colour type -> Pillow's mode, channels
_WITHOUT_EFFECT = (b"pHYs", b"gAMA", b"tEXt", b"sRGB", b"tIME", b"cHRM", b"bKGD")  # chunks that do not change the pixels


def decode_plain_png(content: bytes, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decode a plain PNG of `size` (H, W) to uint8 (C, H, W). None if it is not plain, is damaged or has another size."""
    try:
        width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, len(_START))
        if not content.startswith(_START) or depth != 8 or interlaced or colour not in _MODES or (height, width) != size:
            return None
        packed = _packed(content)
        if packed is None:
            return None
        mode, channels = _MODES[colour]
        pixels = Image.core.new(mode, (width, height))
        decoder = Image.core.zip_decoder(mode, mode, False)
        decoder.setimage(pixels, (0, 0, width, height))
        consumed, error = decoder.decode(packed)
        if consumed >= 0 or error:  # a complete and undamaged picture gives -1 and no error
            return None
        encoder = Image.core.raw_encoder(mode, mode, 0, 1)  # copies the pixels out of Pillow's picture
        encoder.setimage(pixels, (0, 0, width, height))
        _, _, copied = encoder.encode(width * height * channels)
        array = np.frombuffer(copied, np.uint8)
    except (AttributeError, TypeError, ValueError, OSError, struct.error, zlib.error):
        return None
    return array.reshape(height, width, channels).transpose(2, 0, 1)


def _packed(content: bytes) -> bytes | None:
    """The compressed pixels. None if one of their chunks is damaged, or if another chunk may change them in an unknown way."""
    at, found = len(_START) + _HEADER, list[bytes]()
    while True:
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IEND":
            return b"".join(found)
        if kind == b"IDAT":
            data = content[at + 8 : at + 8 + length]
            if zlib.crc32(data, zlib.crc32(kind)) != struct.unpack_from(">I", content, at + 8 + length)[0]:
                return None
            found.append(data)
        elif kind not in _WITHOUT_EFFECT:
            return None
        at += 12 + length  # the length, the kind and the CRC have 4 bytes each
