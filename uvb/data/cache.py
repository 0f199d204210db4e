"""The cache of converted sets: each set under its checksum, and a record of the files it was made from.

sets/<checksum>.safetensors     an image set; data sets with the same images share it
sources/<fingerprint>.json      the checksum of the set that these source files gave, and the report of reading them
work/<fingerprint>/             a conversion that is under way, or was interrupted
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from uvb.atomic import replacing
from uvb.data.image_file import Contents, ImageFile
from uvb.data.image_set import ImageSet
from uvb.data.report import ReadReport
from uvb.errors import UserError

SPARE = 1.02  # a conversion starts if the disk has this many times its bytes free


def cache_folder() -> Path:
    """``UVB_CACHE``, by default ``~/.cache/uvb``."""
    return Path(os.environ.get("UVB_CACHE") or "~/.cache/uvb").expanduser()


def set_path(checksum: str) -> Path:
    """Where the set with this checksum belongs."""
    return cache_folder() / "sets" / f"{checksum}.safetensors"


def find(fingerprint: str, name: str) -> ImageSet | None:
    """The set that was made from the files of `fingerprint`. None if there is no such set, or it is damaged."""
    try:
        entry = json.loads((cache_folder() / "sources" / f"{fingerprint}.json").read_text())
        return ImageSet.load(set_path(entry["checksum"]), name, ReadReport.from_json(entry["report"]))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def keep(fingerprint: str, checksum: str, made: ImageFile, report: ReadReport) -> ImageSet:
    """Move a sealed file from its workplace into the cache, and record which source files gave it. Return the set."""
    adopt(checksum, made.path)
    with writing(), replacing(cache_folder() / "sources" / f"{fingerprint}.json") as temporary:
        temporary.write_text(json.dumps({"checksum": checksum, "report": report.to_json()}, indent=1))
    clear(made.path.parent)
    return ImageSet.load(set_path(checksum), made.contents.name, report)


def regrouped(images: ImageSet, name: str, train: Tensor, test: Tensor, report: ReadReport) -> ImageSet:
    """Write a set that divides the training images of another set, unless the cache has it. Return it, memory-mapped.

    Args:
        train: int64 (n,), which images train.
        test: int64 (m,), which images become the test set.
    """
    key = f"{images.checksum}-{hashlib.sha256(test.numpy().tobytes()).hexdigest()[:8]}"
    if (found := find(key, name)) is not None:
        return found
    labels = images.train_labels
    train_labels, test_labels = (None if labels is None else labels[rows].numpy() for rows in (train, test))
    contents = Contents(name, images.shape, len(train), len(test), train_labels, test_labels, images.levels, images.classes)
    with workplace(key) as folder, writing():
        require_space(folder, contents.images * contents.row_bytes)
        file = ImageFile(folder / "images.part", contents)
        checksum = file.fill(images.train[rows].numpy() for rows in torch.cat([train, test]).split(contents.block_rows))
        return keep(key, checksum, file, report)


def adopt(checksum: str, made: Path) -> None:
    """Move a whole file to its place in the cache."""
    with writing():
        target = set_path(checksum)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)


@contextmanager
def workplace(key: str) -> Iterator[Path]:
    """The folder of one conversion. Only one process of this machine uses it at a time. Files of an earlier process stay."""
    folder = cache_folder() / "work" / key
    with writing():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f"{key}.lock").open("w")
    with lock:
        with writing():
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder.mkdir(exist_ok=True)
        yield folder


def clear(folder: Path) -> None:
    """Remove a workplace."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.with_name(f"{folder.name}.lock").unlink()


def require_space(folder: Path, size: int) -> None:
    """Raise `UserError` unless the disk has room for `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < SPARE * size:
        raise UserError(
            f"converting the images takes {size / 1e9:.1f} GB in {cache_folder()}, where {free / 1e9:.1f} GB are free; "
            "free some space, or set UVB_CACHE to a folder on a larger disk"
        )


@contextmanager
def writing() -> Iterator[None]:
    """Turn an `OSError` of the block into a `UserError` that says in one line that the cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the cache of images {error.filename or cache_folder()}: {error.strerror}; make it writable, "
            "free some space, or set UVB_CACHE to another folder"
        ) from error
