"""One's own images, by path."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uvb.data.image_set import ImageSet
from uvb.data.readers._parts import Parts, shuffled
from uvb.data.readers.folder import read_image_folder
from uvb.data.readers.npz import read_npz
from uvb.data.readers.parquet import read_parquet
from uvb.errors import UserError


def load_path(path: Path, label_column: str | None = None) -> ImageSet:
    """Images of a Parquet file, a folder of Parquet shards, an ``.npz``, or a folder of images, named after the path.

    Files without a test set are split by the fixed permutation ``torch.randperm(N)`` of seed 0: its first tenth (rounded, at
    least two images) is the test set, the rest trains. Where they have one, training images are put in such an order, so
    that the first so many are of all classes. Labels, integers or strings, are numbered from 0 in sorted order. Floats are
    rounded to 255 levels. How each kind is read is said in `uvb.data.readers.parquet`, `npz` and `folder`.

    Raises:
        UserError: the path is none of these, or what it holds is damaged or unfit.
    """
    path = path.resolve()
    if (path.is_dir() and any(path.glob("*.parquet"))) or path.suffix == ".parquet":
        parts = read_parquet(path, label_column)
    elif label_column is not None:
        raise UserError(f"label_column = {label_column!r}: only Parquet has columns, and {path} is none")
    elif path.is_dir():
        parts = read_image_folder(path)
    elif path.suffix == ".npz":
        parts = read_npz(path)
    else:
        raise UserError(f"{path}: give a .parquet or .npz file, a folder of Parquet shards, or a folder of images")
    parts = _split(parts, path) if parts.test is None else _mixed(parts)
    assert parts.test is not None
    for images, split in ((parts.train, "training"), (parts.test, "test")):
        if len(images) < 2:
            raise UserError(f"{path}: its {split} set has one image; at least two are needed, or no error could be told")
    train_labels, test_labels = _numbered(parts.train_labels, parts.test_labels, path)
    return ImageSet(path.name if path.is_dir() else path.stem, parts.train, parts.test, train_labels, test_labels)


def _split(parts: Parts, path: Path) -> Parts:
    images, labels = parts.train, parts.train_labels
    if len(images) < 4:
        raise UserError(f"{path}: images in it: {len(images)}; at least four are needed, two to train and two to test")
    tenth = max(2, round(len(images) / 10))
    order = shuffled(len(images))
    test, train = order[:tenth], order[tenth:]
    return Parts(
        images[torch.from_numpy(train)],
        images[torch.from_numpy(test)],
        None if labels is None else labels[train],
        None if labels is None else labels[test],
    )


def _mixed(parts: Parts) -> Parts:
    order, labels = shuffled(len(parts.train)), parts.train_labels
    return parts._replace(train=parts.train[torch.from_numpy(order)], train_labels=None if labels is None else labels[order])


def _numbered(train: NDArray[Any] | None, test: NDArray[Any] | None, path: Path) -> tuple[Tensor | None, Tensor | None]:
    """int64 labels: each its rank among all of both sets."""
    given = [labels for labels in (train, test) if labels is not None]
    if len({labels.dtype.kind == "U" for labels in given}) > 1:
        raise UserError(f"{path}: training and test labels must both be integers, or both strings")
    if given:
        names = np.unique(np.concatenate(given))
        train, test = (None if labels is None else np.searchsorted(names, labels) for labels in (train, test))
    train_labels, test_labels = (
        None if labels is None else torch.from_numpy(labels.astype(np.int64)) for labels in (train, test)
    )
    return train_labels, test_labels
