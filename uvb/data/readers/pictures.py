"""Read pictures for a trained model, check them, and convert them to the model's channels and size."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uvb.data.readers.arrays import first_array, is_array
from uvb.data.readers.decode import AS_IT_IS, SUFFIXES, Decoding, decode
from uvb.errors import UserError
from uvb.spec import Shape

NOISE_REACH = 10.0
"""How far a noisy pixel may lie outside [0, 1], in units of sigma. A value farther outside must have wrong units."""


def read_pictures(path: Path, shape: Shape, sigma: float, decoding: Decoding = AS_IT_IS) -> tuple[Tensor, list[str]]:
    """Read pictures for a model: (N, C, H, W) float32 in units of [0, 1], and their names.

    Pictures are decoded as in training. Then they are converted to the model's channels and resized to its height and width.
    Arrays (`.npy`, `.npz`) must have the model's shape, and may be noisy.

    Args:
        path: a picture, a folder of pictures, or an array.
        shape: (C, H, W) of the model.
        sigma: the model's noise level. It limits how far noisy values may lie outside [0, 1].

    Raises:
        UserError: there is no picture, a file is not a picture, or an array does not fit the model.
    """
    if is_array(path):
        images = noisy_images(first_array(path), f"{path}: the array", shape, sigma)
        return images, [f"{i:04d}" for i in range(len(images))]
    if shape[0] not in (1, 3):
        raise UserError(f"this model takes images of {shape[0]} channels, but pictures have 1 or 3; give an .npy or .npz array")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    if not files or not files[0].exists():
        raise UserError(f"{path}: no picture there; give a picture, a folder of pictures, or an .npy or .npz array")
    return torch.stack([_fitted(file, shape, decoding) for file in files]), [file.stem for file in files]


def noisy_images(array: NDArray[Any], what: str, shape: Shape, sigma: float) -> Tensor:
    """Check an array of images for a model. Return (N, C, H, W) float32 in units of [0, 1].

    uint8 values are divided by 255. Floats, which may be noisy, stay unchanged. A single image may lack the axis N. Grey images
    may lack the axis C. Channels may come last.

    Args:
        array: the images.
        what: how error messages name the array.
        shape: (C, H, W) of the model.
        sigma: the model's noise level.

    Raises:
        UserError: the array has another shape or type, or its values are not in units of [0, 1].
    """
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UserError(f"{what} is {array.dtype}; uint8 from 0 to 255, or floats in units of [0, 1], are needed")
    given, grey = array.shape, shape[0] == 1
    last = (*shape[1:], shape[0])
    if array.shape in (shape, last) or (grey and array.shape == shape[1:]):
        array = array[None]
    if grey and array.shape[1:] in (shape[1:], last):
        array = array.reshape(len(array), *shape)
    elif array.shape[1:] == last and last != shape:
        array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    if array.shape[1:] != shape:
        raise UserError(f"{what} is {given}; this model takes (N, {', '.join(map(str, shape))})")
    if len(array) == 0:
        raise UserError(f"{what} is empty; at least one image is needed")
    if array.dtype == np.uint8:
        return torch.from_numpy(array.astype(np.float32) / 255)
    if not np.isfinite(array).all():
        raise UserError(f"{what} holds NaN or infinite values; pixels must be finite")
    low, high, reach = float(array.min()), float(array.max()), NOISE_REACH * sigma
    if low < -reach or high > 1 + reach:
        raise UserError(
            f"{what} has values from {low:g} to {high:g}; pixels must be in units of [0, 1], plus noise of sigma {sigma:g}; "
            "divide them by 255, or give uint8"
        )
    return torch.from_numpy(array.astype(np.float32))


def _fitted(file: Path, shape: Shape, decoding: Decoding) -> Tensor:
    """Read a picture as float32 (C, H, W) in [0, 1], with the model's `shape`."""
    pixels = decode(file, str(file), decoding)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    picture = picture.convert("L" if shape[0] == 1 else "RGB").resize((shape[2], shape[1]))
    fitted = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
    return fitted.reshape(shape[1], shape[2], -1).permute(2, 0, 1)
