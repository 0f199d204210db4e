"""The cache of converted image sets, each named by its checksum, with records of the source files.

A fingerprint identifies the source files and the options of reading them, or a set and its new division (`regrouped`).

sets/<checksum>.safetensors     an image set; data sets with the same images share it
sources/<fingerprint>.json      the checksum of the set made from these source files, and the report of reading them
work/<fingerprint>/             the working folder of a running or interrupted conversion; a fetch has fetch-<checksum>/
work/<fingerprint>.lock         the lock of this folder, which one process holds
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from uvb.atomic import replacing
from uvb.data.image_file import Contents, ImageFile
from uvb.data.image_set import ImageSet
from uvb.data.report import ReadReport
from uvb.errors import UserError
from uvb.machine import at_home

SPARE = 1.02  # a conversion needs free space on the disk: the bytes of the set times this factor


def cache_folder() -> Path:
    """The folder in the environment variable ``UVB_CACHE``, by default ``~/.cache/uvb``."""
    return at_home(os.environ.get("UVB_CACHE") or "~/.cache/uvb")


def set_path(checksum: str) -> Path:
    """The path of the set with this checksum. The file may not exist."""
    return cache_folder() / "sets" / f"{checksum}.safetensors"


def find(fingerprint: str, name: str) -> ImageSet | None:
    """The set that was made from source files with this fingerprint. None if there is no such set, or it is damaged."""
    try:
        entry = json.loads((cache_folder() / "sources" / f"{fingerprint}.json").read_text())
        return ImageSet.load(set_path(entry["checksum"]), name, ReadReport.from_json(entry["report"]))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def keep(fingerprint: str, checksum: str, made: ImageFile, report: ReadReport) -> ImageSet:
    """Move a complete file from its working folder into the cache, and record its source files. Return the set."""
    adopt(checksum, made.path)
    with writing(), replacing(cache_folder() / "sources" / f"{fingerprint}.json") as temporary:
        temporary.write_text(json.dumps({"checksum": checksum, "report": report.to_json()}, indent=1))
    clear(made.path.parent)
    return ImageSet.load(set_path(checksum), made.contents.name, report)


def regrouped(images: ImageSet, name: str, train: Tensor, test: Tensor, report: ReadReport) -> ImageSet:
    """Divide the training images of a set into a new training and a new test set. Return the new set, memory-mapped.

    The new set is written into the cache if the cache does not have it yet.

    Args:
        train: int64 (n,), the indices of the images that train.
        test: int64 (m,), the indices of the images that become the test set.
    """
    key = f"{images.checksum}-{hashlib.sha256(test.numpy().tobytes()).hexdigest()[:8]}"
    if (found := find(key, name)) is not None:
        return found
    labels = images.train_labels
    train_labels, test_labels = (None if labels is None else labels[rows].numpy() for rows in (train, test))
    contents = Contents(name, images.shape, len(train), len(test), train_labels, test_labels, images.levels, images.classes)
    with workplace(key) as folder, writing():
        if (found := find(key, name)) is not None:  # another process wrote it while this one waited
            return found
        require_space(folder, contents.images * contents.row_bytes)
        file = ImageFile(folder / "images.part", contents)
        checksum = file.fill(images.train[rows].numpy() for rows in torch.cat([train, test]).split(contents.block_rows))
        return keep(key, checksum, file, report)


def adopt(checksum: str, made: Path) -> None:
    """Move a complete file to its place in the cache."""
    with writing():
        target = set_path(checksum)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)


@contextmanager
def workplace(key: str) -> Iterator[Path]:
    """Yield the working folder of one conversion or fetch. It keeps the files of an interrupted one. If empty, it is removed.

    Only one process of this machine can use the folder at a time, and the others wait. After the wait, the set may be in the
    cache already.
    """
    folder = cache_folder() / "work" / key
    with writing():
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder.with_name(f"{key}.lock"))
    with lock:
        try:
            with writing():
                folder.mkdir(exist_ok=True)
            yield folder
        finally:
            with suppress(OSError):  # a folder with files stays, and so does its lock
                if folder.exists():
                    folder.rmdir()
                Path(lock.name).unlink()


def _locked(path: Path) -> IO[str]:
    """Open and lock a file. The last holder may have removed the file while this process waited. Then lock a new one."""
    while True:
        lock = path.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()


def clear(folder: Path) -> None:
    """Remove a working folder. `workplace` removes its lock."""
    shutil.rmtree(folder, ignore_errors=True)


def require_space(folder: Path, size: int) -> None:
    """Raise `UserError` if the disk has no room for `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < SPARE * size:
        raise UserError(
            f"the converted images need {size / 1e9:.1f} GB in {cache_folder()}, where {free / 1e9:.1f} GB are free; "
            "free some space, or set UVB_CACHE to a folder on a larger disk"
        )


@contextmanager
def writing() -> Iterator[None]:
    """Turn an `OSError` in this block into a `UserError` that says that the cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the cache of images {error.filename or cache_folder()}: {error.strerror}; make it writable, "
            "free some space, or set UVB_CACHE to another folder"
        ) from error
