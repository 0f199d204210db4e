"""One's own images as NumPy arrays."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uvb.data.readers._parts import Parts
from uvb.errors import UserError

_LAYOUTS = (  # train, test, labels of train, labels of test
    ("train", "test", ("y_train", "train_labels"), ("y_test", "test_labels")),
    ("x_train", "x_test", ("y_train", "train_labels"), ("y_test", "test_labels")),
    ("train_images", "test_images", ("y_train", "train_labels"), ("y_test", "test_labels")),
    ("images", "", ("labels", "y"), ()),
)


def read_npz(path: Path) -> Parts:
    """Images of an ``.npz``: arrays ``train``, ``x_train`` or ``train_images`` with its test, or ``images``.

    The test array is named likewise (``test``, ...) and may be absent. An array is (N, H, W), (N, C, H, W), or
    (N, H, W, C) if its last axis is 1, 3 or 4 and its second is not; uint8, or floats in [0, 1], which are rounded to
    255 levels. Labels, integers or strings of shape (N,) or (N, 1), are optional: ``y_train`` and ``y_test`` (or
    ``train_labels``, ``test_labels``); ``labels`` (or ``y``) beside ``images``.

    Raises:
        UserError: a damaged file, no such arrays, an empty one, NaN, values outside [0, 1], or another type or shape.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: not an .npz of plain arrays, or damaged ({' '.join(str(error).split())}); "
            "write it with numpy.savez_compressed"
        ) from error
    for train, test, train_labels, test_labels in _LAYOUTS:
        if train not in arrays:
            continue
        images, labels = _images(arrays[train], path, train), _labels(arrays, train_labels, path, train)
        if test not in arrays:
            return Parts(images, None, labels, None)
        return Parts(images, _images(arrays[test], path, test), labels, _labels(arrays, test_labels, path, test))
    raise UserError(
        f"{path}: it has the arrays {', '.join(arrays) or '(none)'}; "
        "train and test, x_train and x_test, train_images and test_images, or images are needed"
    )


def _images(array: NDArray[Any], path: Path, name: str) -> Tensor:
    """uint8 (N, C, H, W)."""
    where = f"{path}, array {name!r}"
    if array.ndim not in (3, 4):
        raise UserError(f"{where} has shape {array.shape}; (N, H, W), (N, C, H, W) or (N, H, W, C) is needed")
    if array.size == 0:
        raise UserError(f"{where} is empty (shape {array.shape}); at least one image is needed")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise UserError(f"{where} has NaN or infinite values; floats in [0, 1] are needed")
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise UserError(f"{where} has floats from {low:g} to {high:g}; scale them to [0, 1], or give uint8 from 0 to 255")
        array = np.rint(array * array.dtype.type(255)).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UserError(f"{where} is {array.dtype}; uint8 from 0 to 255, or floats in [0, 1], are needed")
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[-1] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(arrays: dict[str, NDArray[Any]], names: tuple[str, ...], path: Path, images: str) -> NDArray[Any] | None:
    name = next((name for name in names if name in arrays), None)
    if name is None:
        return None
    labels, count = arrays[name], len(arrays[images])
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iubU":
        raise UserError(
            f"{path}, array {name!r} is {labels.dtype} of shape {labels.shape}; integers or strings of shape ({count},), "
            f"one for each of {images!r}, are needed"
        )
    return labels.reshape(count)
