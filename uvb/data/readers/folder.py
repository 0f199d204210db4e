"""One's own images as files in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uvb.data.readers._decode import Encoded, decode
from uvb.data.readers._parts import Parts
from uvb.errors import UserError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_TEST_NAMES = ("test", "validation", "val")


def read_image_folder(path: Path) -> Parts:
    """PNG and JPEG files of a folder, or of its subfolders ``train`` and ``test`` (or ``validation``, ``val``).

    If all images lie in subfolders, the first subfolder's name is an image's label. Files are taken in the order of
    their paths.

    Raises:
        UserError: no images, some but not all in subfolders, or images that cannot be read or do not fit.
    """
    train_folder, test_folder = path, None
    if (path / "train").is_dir():
        train_folder = path / "train"
        test_folder = next((path / name for name in _TEST_NAMES if (path / name).is_dir()), None)
    train, train_labels = _files(train_folder)
    test, test_labels = _files(test_folder) if test_folder else ([], None)
    images = decode([Encoded(str(file), file) for file in train + test])
    return Parts(images[: len(train)], images[len(train) :] if test else None, train_labels, test_labels)


def _files(folder: Path) -> tuple[list[Path], NDArray[Any] | None]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise UserError(f"{folder}: no images; a folder of PNG or JPEG files, or of Parquet shards, is needed")
    classes = [file.relative_to(folder).parts[0] for file in files if file.parent != folder]
    if not classes:
        return files, None
    if len(classes) < len(files):
        stray = next(file for file in files if file.parent == folder)
        raise UserError(f"{stray} lies beside subfolders of images; put all images in subfolders (their labels), or none")
    return files, np.asarray(classes, np.str_)
