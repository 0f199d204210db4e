"""The file format of an image set: safetensors with a checksum for each block of images. Files are read memory-mapped.

The header's metadata holds the name, the levels, the classes, the brightest pixel, the set's checksum, and a SHA-256 of each
block of images. The rows can be written in any order. The header is written twice, with the same length: first with zeros for
the checksums, and again when the checksums are known.
"""

import hashlib
import json
import math
import os
import struct
import warnings
from collections.abc import Iterable
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
from uvb.errors import UserError, one_line

BLOCK_BYTES = 1 << 26  # bytes of images that share one SHA-256
WRITABLE_BYTES = 1 << 30  # larger files are mapped read-only, because the system reserves memory for a writable map
TENSORS = ("train", "test", "train_labels", "test_labels")
_MAX_HEADER = 1 << 27  # bytes; a file that claims a longer header is damaged
_TYPES: dict[str, Any] = {"U8": np.uint8, "I64": np.int64}


@dataclass(frozen=True)
class Contents:
    """What a file holds besides pixels.

    Attributes:
        name: what tables and figures call the data set.
        shape: (C, H, W) of an image.
        train_images: number of training images.
        test_images: number of test images.
        train_labels: int64, shape (train_images,), or None.
        test_labels: int64, shape (test_images,), or None.
        levels: the pixel value that means 1.0.
        classes: names of the classes by label, or empty.
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
        """The number of images that share one SHA-256."""
        return max(1, BLOCK_BYTES // self.row_bytes)

    @property
    def blocks(self) -> list[tuple[int, int]]:
        return block_ranges(self.train_images, self.test_images, self.block_rows)


@dataclass(frozen=True)
class ImageFile:
    """A file that is being written: `create` it, `write` images to their rows in any order, then `seal` it."""

    path: Path
    contents: Contents

    def create(self) -> None:
        """Write the header and the labels, and reserve room for the images."""
        with self.path.open("wb") as file:
            file.write(self.header() + b"".join(self._labels.values()))
            file.truncate(self._pixels_start + self.contents.images * self.contents.row_bytes)

    def write(self, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        """Write images (n, C, H, W) to the rows (n,) of the file."""
        jumps = np.flatnonzero(np.diff(rows) != 1) + 1  # one write for each run of consecutive rows
        with self.path.open("r+b", buffering=0) as file:
            for row, run in zip(rows[[0, *jumps]].tolist(), np.split(images, jumps), strict=True):
                os.pwrite(file.fileno(), np.ascontiguousarray(run).data, self._pixels_start + row * self.contents.row_bytes)

    def sync(self) -> None:
        """Flush the writes of all processes to the disk."""
        with self.path.open("r+b") as file:
            os.fdatasync(file.fileno())

    def seal(self) -> tuple[str, Survey]:
        """Read all images once more, and write their checksums into the header. Return the set's checksum and a `Survey`.

        The set's checksum equals `ImageSet.checksum`.
        """
        held, survey, sums = self.contents, Survey(), list[str]()
        whole = hashlib.sha256(f"levels {held.levels}".encode())
        with ThreadPoolExecutor(2) as pool, self.path.open("rb") as file:
            file.seek(self._pixels_start)
            for start, end in held.blocks:
                train = start < held.train_images
                if start in (0, held.train_images):  # the first block of a split
                    key, count = ("train", held.train_images) if train else ("test", held.test_images)
                    whole.update(f"|{key} {(count, *held.shape)} ".encode())
                block = np.fromfile(file, np.uint8, (end - start) * held.row_bytes).reshape(end - start, *held.shape)
                whole_updated = pool.submit(whole.update, block.data.cast("B"))
                block_digest = pool.submit(hashlib.sha256, block.data.cast("B"))
                survey.add(block, train=train)
                whole_updated.result()
                sums.append(block_digest.result().hexdigest())
        for key in ("train_labels", "test_labels"):
            labels = self._labels.get(key)
            described = "none" if labels is None else f"{(len(labels) // 8,)} "  # the shape, as a tuple
            whole.update(f"|{key} {described}".encode() + (labels or b""))
        checksum = whole.hexdigest()[:16]
        with self.path.open("r+b") as file:
            file.write(self.header(checksum, survey.brightest, tuple(sums)))
            file.flush()
            os.fsync(file.fileno())
        return checksum, survey

    def fill(self, blocks: Iterable[NDArray[np.uint8]]) -> str:
        """Create the file, write all images in order, and `seal` the file. Return the set's checksum."""
        self.create()
        row = 0
        for block in blocks:
            self.write(block, np.arange(row, row + len(block)))
            row += len(block)
        return self.seal()[0]

    def header(self, checksum: str = "0" * 16, brightest: int = 0, sums: tuple[str, ...] = ()) -> bytes:
        """The bytes of the header. Their number does not depend on the arguments."""
        held = self.contents
        metadata = {
            "name": held.name, "levels": str(held.levels), "classes": json.dumps(held.classes), "checksum": checksum,
            "brightest": f"{brightest:03d}", "labels": hashlib.sha256(b"".join(self._labels.values())).hexdigest(),
            "block_rows": str(held.block_rows), "blocks": " ".join(sums or ("0" * 64,) * len(held.blocks)),
        }  # fmt: skip
        head: dict[str, Any] = {"__metadata__": metadata}
        parts = [(key, "I64", [len(labels) // 8], len(labels)) for key, labels in self._labels.items()]
        for key, count in (("train", held.train_images), ("test", held.test_images)):
            parts.append((key, "U8", [count, *held.shape], count * held.row_bytes))
        at = 0
        for key, kind, shape, size in parts:
            head[key] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    @cached_property
    def _labels(self) -> dict[str, bytes]:
        """The labels as bytes, 8 for each label, by the names of their tensors. A split without labels has no entry."""
        given = {"train_labels": self.contents.train_labels, "test_labels": self.contents.test_labels}
        return {key: np.asarray(labels, np.int64).tobytes() for key, labels in given.items() if labels is not None}

    @cached_property
    def _pixels_start(self) -> int:
        return len(self.header()) + sum(map(len, self._labels.values()))


def block_ranges(train_images: int, test_images: int, block_rows: int) -> list[tuple[int, int]]:
    """The first row and the end (exclusive) of every block. No block mixes training and test images."""
    ends = (0, train_images), (train_images, train_images + test_images)
    return [(at, min(at + block_rows, end)) for begin, end in ends for at in range(begin, end, block_rows)]


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """Read the header: the descriptions of the tensors, the metadata, and the byte at which the data begin.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _MAX_HEADER):
                raise ValueError("its header is longer than the file")
            head = json.loads(file.read(length))
        metadata = head.pop("__metadata__")
        end = max(tensor["data_offsets"][1] for tensor in head.values())
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes, but its header describes {8 + length + end:,}")
        return head, metadata, 8 + length
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; an image set written by ImageSet.save is needed") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise UserError(f"{path}: not an image set, or damaged ({one_line(error)}); write it again") from error


def map_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The memory-mapped tensors of a file, and its metadata. The system reads a page only when it is used.

    Raises:
        UserError: the file is missing, damaged, or not an image set.
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
