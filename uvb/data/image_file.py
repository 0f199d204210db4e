"""Image sets as files: safetensors with checksummed blocks, written row by row in any order, and memory-mapped.

The header's metadata holds the name, the levels, the classes, the brightest pixel, the set's checksum, and a SHA-256 for
every block of images. The header is written twice, with the same length: first with zeros for what is not known yet.
"""

import hashlib
import json
import math
import os
import struct
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uvb.data.survey import Survey
from uvb.errors import UserError

BLOCK_BYTES = 1 << 26  # of images under one SHA-256
WRITABLE_BYTES = 1 << 30  # a larger map is read-only: the system counts a private one as memory that may be needed
TENSORS = ("train", "test", "train_labels", "test_labels")
_MAX_HEADER = 1 << 27
_TYPES: dict[str, Any] = {"U8": np.uint8, "I64": np.int64}


@dataclass(frozen=True)
class Contents:
    """What a file holds besides pixels.

    Attributes:
        shape: (C, H, W) of an image.
        train_images: how many images train.
        test_images: how many test.
        train_labels: int64, shape (train_images,), or None.
        test_labels: int64, shape (test_images,), or None.
    """

    name: str
    shape: tuple[int, int, int]
    train_images: int
    test_images: int
    train_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None
    levels: int = 255
    classes: tuple[str, ...] = ()

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape)

    @property
    def images(self) -> int:
        return self.train_images + self.test_images

    @property
    def block_rows(self) -> int:
        """Images under one SHA-256."""
        return max(1, BLOCK_BYTES // self.row_bytes)


@dataclass(frozen=True)
class ImageFile:
    """A file that is being written: images go to their rows in any order, then `seal` makes it whole."""

    path: Path
    contents: Contents

    def create(self) -> None:
        """Write header and labels, and make room for the images."""
        with self.path.open("wb") as file:
            file.write(self.header())
            for labels in (self.contents.train_labels, self.contents.test_labels):
                if labels is not None:
                    file.write(np.ascontiguousarray(labels, np.int64).tobytes())
            file.truncate(self.pixels_start + self.contents.images * self.contents.row_bytes)

    @cached_property
    def labels_sum(self) -> str:
        """The SHA-256 of the labels' bytes."""
        digest = hashlib.sha256()
        for labels in (self.contents.train_labels, self.contents.test_labels):
            if labels is not None:
                digest.update(np.ascontiguousarray(labels, np.int64).tobytes())
        return digest.hexdigest()

    @cached_property
    def pixels_start(self) -> int:
        """Where the first image begins."""
        labels = sum(
            8 * len(labels) for labels in (self.contents.train_labels, self.contents.test_labels) if labels is not None
        )
        return len(self.header()) + labels

    def header(self, checksum: str = "0" * 16, brightest: int = 0, sums: tuple[str, ...] = ()) -> bytes:
        """The file's first bytes; their number does not depend on the arguments."""
        held = self.contents
        blocks = len(block_ranges(held.train_images, held.test_images, held.block_rows))
        metadata = {
            "name": held.name, "levels": str(held.levels), "classes": json.dumps(held.classes), "checksum": checksum,
            "brightest": f"{brightest:03d}", "labels": self.labels_sum, "block_rows": str(held.block_rows),
            "blocks": " ".join(sums or ("0" * 64,) * blocks),
        }  # fmt: skip
        head: dict[str, Any] = {"__metadata__": metadata}
        at = 0
        for key, labels in (("train_labels", held.train_labels), ("test_labels", held.test_labels)):
            if labels is not None:
                head[key] = {"dtype": "I64", "shape": [len(labels)], "data_offsets": [at, at + 8 * len(labels)]}
                at += 8 * len(labels)
        for key, count in (("train", held.train_images), ("test", held.test_images)):
            head[key] = {"dtype": "U8", "shape": [count, *held.shape], "data_offsets": [at, at + count * held.row_bytes]}
            at += count * held.row_bytes
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    def writer(self) -> "Writer":
        """A way to write images, for one process."""
        return Writer(self)

    def seal(self) -> tuple[str, Survey]:
        """Read everything once more, note its sums in the header, and bring it to the disk; returns checksum and survey."""
        survey, whole = Survey(), hashlib.sha256(f"levels {self.contents.levels}".encode())
        sums: list[str] = []
        held = self.contents
        with ThreadPoolExecutor(2) as pool:
            whole.update(f"|train {(held.train_images, *held.shape)} ".encode())
            for block, train, begins_test in self._blocks():
                if begins_test:
                    whole.update(f"|test {(held.test_images, *held.shape)} ".encode())
                data = block.data.cast("B")
                passes = pool.submit(whole.update, data), pool.submit(hashlib.sha256, data)
                survey.add(block, train=train)
                passes[0].result()
                sums.append(passes[1].result().hexdigest())
        for key, labels in (("train_labels", held.train_labels), ("test_labels", held.test_labels)):
            if labels is None:
                whole.update(f"|{key} none".encode())
            else:
                whole.update(f"|{key} {(len(labels),)} ".encode() + np.ascontiguousarray(labels).tobytes())
        checksum = whole.hexdigest()[:16]
        with self.path.open("r+b") as file:
            file.write(self.header(checksum, survey.brightest, tuple(sums)))
            file.flush()
            os.fsync(file.fileno())
        return checksum, survey

    def _blocks(self) -> Iterator[tuple[NDArray[np.uint8], bool, bool]]:
        """Blocks of images as they lie in the file, whether they train, and whether the test set begins with them."""
        held = self.contents
        with self.path.open("rb") as file:
            file.seek(self.pixels_start)
            for start, end in block_ranges(held.train_images, held.test_images, held.block_rows):
                block = np.fromfile(file, np.uint8, (end - start) * held.row_bytes).reshape(end - start, *held.shape)
                yield block, start < held.train_images, start == held.train_images


def block_ranges(train_images: int, test_images: int, block_rows: int) -> list[tuple[int, int]]:
    """First and last row (exclusive) of every block; none holds images of both sets."""
    ends = (0, train_images), (train_images, train_images + test_images)
    return [(at, min(at + block_rows, end)) for begin, end in ends for at in range(begin, end, block_rows)]


class Writer:
    """Writes images of an `ImageFile` to their rows."""

    def __init__(self, file: ImageFile) -> None:
        self._descriptor = os.open(file.path, os.O_RDWR)
        self._start, self._row_bytes = file.pixels_start, file.contents.row_bytes

    def write(self, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Write (n, C, H, W) to `rows` (n,)."""
        if len(rows) and int(rows[-1]) - int(rows[0]) == len(rows) - 1 and (np.diff(rows) == 1).all():
            os.pwrite(self._descriptor, images.tobytes(), self._start + int(rows[0]) * self._row_bytes)
            return
        for image, row in zip(np.ascontiguousarray(images), rows.tolist(), strict=True):
            os.pwrite(self._descriptor, image.data, self._start + row * self._row_bytes)

    def sync(self) -> None:
        """Bring what was written to the disk."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """The tensors' descriptions, the metadata, and where the data begin.

    Raises:
        UserError: the file is missing, damaged, or not of this kind.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MAX_HEADER):
                raise ValueError("its header does not fit into it")
            head = json.loads(file.read(length))
        metadata = head.pop("__metadata__")
        end = max(tensor["data_offsets"][1] for tensor in head.values())
        if 8 + length + end != size:
            raise ValueError(f"{8 + length + end:,} bytes should be there, and {size:,} are")
        return head, metadata, 8 + length
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; an image set written by ImageSet.save is needed") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise UserError(f"{path}: not an image set, or damaged ({' '.join(str(error).split())}); write it again") from error


def map_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, memory-mapped, and its metadata. No page is read before it is used.

    Raises:
        UserError: as `read_header`.
    """
    head, metadata, start = read_header(path)
    mode: Literal["c", "r"] = "c" if path.stat().st_size <= WRITABLE_BYTES else "r"
    tensors = {}
    for key, described in head.items():
        if key not in TENSORS or described.get("dtype") not in _TYPES:
            raise UserError(f"{path}: not an image set; write it again")
        begin, end = described["data_offsets"]
        kind, shape = np.dtype(_TYPES[described["dtype"]]), tuple(described["shape"])
        if end - begin != math.prod(shape) * kind.itemsize:
            raise UserError(f"{path}: damaged, the shape of {key} does not fit its size; write it again")
        array = np.memmap(path, kind, mode, start + begin, shape) if end > begin else np.empty(shape, kind)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            tensors[key] = torch.from_numpy(array)
    return tensors, metadata
