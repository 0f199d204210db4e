"""Encoded images (PNG, JPEG) to one uint8 tensor."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uvb.errors import UserError

_BLOCK = 128  # images a task, so that the pool's own cost is small


class Encoded(NamedTuple):
    """One image file, in memory or on disk, and what to call it in an error."""

    where: str
    content: bytes | Path


def decode(images: Sequence[Encoded]) -> Tensor:
    """Decodes at least one image to uint8 (N, C, H, W): C = 1 if they are grey, 3 if they are in colour.

    Threads are used, since Pillow decodes outside the interpreter's lock.

    Raises:
        UserError: an image cannot be decoded, is neither 8-bit grey nor RGB, or differs from the first in size or mode;
            the line names the first such image.
    """
    first = _pixels(images[0])
    pixels = np.empty((len(images), *first.shape), np.uint8)  # (N, C, H, W)

    def fill(start: int) -> None:
        for index in range(start, min(start + _BLOCK, len(images))):
            image = _pixels(images[index])
            if image.shape != first.shape:
                raise UserError(
                    f"{images[index].where} is {_describe(image)}, but {images[0].where} is {_describe(first)}; "
                    "all images must have one size, and be all grey or all RGB"
                )
            pixels[index] = image

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, len(images), _BLOCK)):  # in order, so the first offender is the one reported
            pass
    return torch.from_numpy(pixels)


def _pixels(encoded: Encoded) -> NDArray[np.uint8]:
    """One image as uint8 (C, H, W)."""
    content = io.BytesIO(encoded.content) if isinstance(encoded.content, bytes) else encoded.content
    try:
        with Image.open(content) as image:
            if image.mode not in ("1", "L", "RGB"):
                raise UserError(
                    f"{encoded.where} has mode {image.mode}; convert the images to 8-bit grey (L) or RGB without alpha"
                )
            array = np.asarray(image.convert("L") if image.mode == "1" else image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{encoded.where} is not an image that can be read ({' '.join(str(error).split())})") from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _describe(image: NDArray[np.uint8]) -> str:
    channels, height, width = image.shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"
