"""Fetching an image file in parts, each checked by its SHA-256, so that a machine gets no more than it needs, and once."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from uvb.data.image_file import block_ranges, read_header
from uvb.errors import UserError

Read = Callable[[int, int], bytes]
"""(offset, bytes) -> the bytes."""

HEAD = 1 << 16  # bytes that are read before it is known how long the header is


class Parts:
    """The parts of an image file, some of which are here. What is here is noted, so that an interruption costs little.

    Args:
        folder: where the file is put together.
        size: the whole file's bytes.
        read: reads from where the file is.

    Raises:
        UserError: what is read is no image file, or is damaged.
    """

    def __init__(self, folder: Path, size: int, read: Read) -> None:
        self.path, self._journal, self._read = folder / "images.part", folder / "parts", read
        self._lock = threading.Lock()
        if not self.path.exists() or not self._journal.exists():
            self._begin(size)
        head, metadata, start = read_header(self.path)
        tensors = {key: described["data_offsets"] for key, described in head.items()}
        self._sums = metadata.get("blocks", "").split()
        train, test = (head[key]["shape"][0] for key in ("train", "test"))
        self._train, self._pixels = train, start + tensors["train"][0]
        self._row = (tensors["train"][1] - tensors["train"][0]) // max(1, train)
        self._start, self._size = start, size
        # a small file has no sums: it is fetched at once, and checked as a whole by who opens it
        self._ranges = block_ranges(train, test, int(metadata["block_rows"])) if self._sums else [(0, train + test)]

    @property
    def here(self) -> set[int]:
        """Numbers of the parts that are here."""
        return {int(line) for line in self._journal.read_text().split()}

    @property
    def complete(self) -> bool:
        return self.here >= set(range(len(self._ranges)))

    def missing(self, train_images: int | None) -> list[int]:
        """Parts that are not here, of all that hold test images or one of the first `train_images` training images."""
        limit = self._train if train_images is None else train_images
        wanted = {number for number, (first, _) in enumerate(self._ranges) if first < limit or first >= self._train}
        return sorted(wanted - self.here)

    def fetch(self, number: int) -> None:
        """Read one part, check it, and put it in its place.

        Raises:
            UserError: it is damaged.
        """
        first, last = self._ranges[number]
        at, size = self._pixels + first * self._row, (last - first) * self._row
        if not self._sums:
            at, size = self._start, self._size - self._start
        content = self._read(at, size)
        if self._sums and hashlib.sha256(content).hexdigest() != self._sums[number]:
            raise UserError(f"the study's images are damaged (rows {first:,} to {last:,}); run the study again")
        with self._lock:
            with self.path.open("r+b") as file:
                file.seek(at)
                file.write(content)
                file.flush()
                os.fdatasync(file.fileno())
            with self._journal.open("a") as journal:
                journal.write(f"{number}\n")

    def _begin(self, size: int) -> None:
        """Fetch header and labels, and make room for the rest."""
        head = self._read(0, min(size, HEAD))
        length = 8 + int.from_bytes(head[:8], "little")
        if length > size:
            raise UserError("the study's images are damaged: the header does not fit into the file; run the study again")
        head += self._read(len(head), length - len(head)) if length > len(head) else b""
        with self.path.open("wb") as file:
            file.write(head[:length])
            file.truncate(size)
        described, metadata, start = read_header(self.path)
        labels = start + min(described["train"]["data_offsets"][0], described["test"]["data_offsets"][0])
        content = self._read(length, labels - length) if labels > length else b""
        if metadata.get("labels") and hashlib.sha256(content).hexdigest() != metadata["labels"]:
            raise UserError("the study's images are damaged (their labels); write them again by running the study")
        with self.path.open("r+b") as file:
            file.seek(length)
            file.write(content)
        self._journal.write_text("")
