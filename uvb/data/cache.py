"""The cache of converted sets: each under its checksum, and beside it what it was made from.

sets/<checksum>.safetensors     an image set, shared by all who have the same images
sources/<fingerprint>.json      what files, read in what way, gave which set, and what was said of them
work/<fingerprint>/             a conversion that is under way, or was interrupted
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uvb.atomic import replacing
from uvb.data.image_file import Contents, ImageFile
from uvb.data.image_set import ImageSet
from uvb.data.report import ReadReport
from uvb.errors import UserError

SPARE = 1.02  # of the bytes that a conversion needs, to be free on the disk


def cache_folder() -> Path:
    """``UVB_CACHE``, by default ``~/.cache/uvb``."""
    return Path(os.environ.get("UVB_CACHE") or "~/.cache/uvb").expanduser()


def set_path(checksum: str) -> Path:
    """Where the set with this checksum lies, if it is there."""
    return cache_folder() / "sets" / f"{checksum}.safetensors"


def find(fingerprint: str, name: str) -> ImageSet | None:
    """The set that was made from these files; None where none was, or what is there is damaged."""
    try:
        entry = json.loads((cache_folder() / "sources" / f"{fingerprint}.json").read_text())
        return ImageSet.load(set_path(entry["checksum"]), name, ReadReport.from_json(entry["report"]))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def keep(fingerprint: str, checksum: str, made: Path, report: ReadReport) -> None:
    """Give a set that was made at `made` its name, and note what it was made from."""
    adopt(checksum, made)
    with writing():
        entry = {"checksum": checksum, "report": report.to_json()}
        with replacing(cache_folder() / "sources" / f"{fingerprint}.json") as temporary:
            temporary.write_text(json.dumps(entry, indent=1))


def regrouped(images: ImageSet, name: str, train: Tensor, test: Tensor, report: ReadReport) -> ImageSet:
    """A memory-mapped set of training images of another, (n,) and (m,) int64; written once."""
    key = f"{images.checksum}-{hashlib.sha256(test.numpy().tobytes()).hexdigest()[:8]}"
    if (found := find(key, name)) is not None:
        return found
    labels = images.train_labels
    train_labels, test_labels = (None if labels is None else labels[rows].numpy() for rows in (train, test))
    rows = torch.cat([train, test])
    contents = Contents(name, images.shape, len(train), len(test), train_labels, test_labels, images.levels, images.classes)
    with workplace(key) as folder, writing():
        file = ImageFile(folder / "images.part", contents)
        require_space(folder, len(rows) * contents.row_bytes)
        file.create()
        writer = file.writer()
        for at in range(0, len(rows), contents.block_rows):
            block = images.train[rows[at : at + contents.block_rows]].numpy()
            writer.write(block, np.arange(at, at + len(block)))
        writer.close()
        checksum, _ = file.seal()
        keep(key, checksum, file.path, report)
        clear(folder)
    return ImageSet.load(set_path(checksum), name, report)


def adopt(checksum: str, made: Path) -> None:
    """Give a whole set its name in the cache."""
    with writing():
        target = set_path(checksum)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)


@contextmanager
def workplace(key: str, wait: Callable[[], None] | None = None) -> Iterator[Path]:
    """The folder of one conversion, for one process of this machine at a time; what it leaves there is found again.

    Args:
        wait: called once where another process is at work there.
    """
    folder = cache_folder() / "work" / key
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f"{key}.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait:
                wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        with writing():
            folder.mkdir(parents=True, exist_ok=True)  # the one before may have removed it
        yield folder


def clear(folder: Path) -> None:
    """Remove a workplace."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.with_name(f"{folder.name}.lock").unlink()


def require_space(folder: Path, size: int) -> None:
    """Refuse where the disk has not `size` bytes left.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < SPARE * size:
        raise UserError(
            f"converting the images takes {size / 1e9:.1f} GB in {cache_folder()}, where {free / 1e9:.1f} GB are free; "
            "free some space, or set UVB_CACHE to a folder on a larger disk"
        )


@contextmanager
def writing() -> Iterator[None]:
    """Tell in one line where the cache cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the cache of images {error.filename or cache_folder()}: {error.strerror}; make it writable, "
            "free some space, or set UVB_CACHE to another folder"
        ) from error
