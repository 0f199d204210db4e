"""Fetch the file of an image set in parts. A machine fetches each part that it needs once, and checks the part's SHA-256."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from uvb.data.image_file import block_ranges, read_header
from uvb.errors import UserError

Read = Callable[[int, int], bytes]
"""(offset, number of bytes) -> the bytes."""

HEAD = 1 << 16  # bytes of the first read, when the length of the header is not known yet


class Parts:
    """A local copy of an image set's file, fetched in parts. A journal lists the fetched parts, so a restart costs little.

    Args:
        folder: the folder of the local file.
        size: bytes of the whole file.
        read: a function that reads from the original file.

    Raises:
        UserError: the original is not the file of an image set, or is damaged.
    """

    def __init__(self, folder: Path, size: int, read: Read) -> None:
        self.path, self._journal, self._read = folder / "images.part", folder / "parts", read
        self._lock = threading.Lock()
        if not self.path.exists() or not self._journal.exists():
            self._begin(size)
        head, metadata, start = read_header(self.path)
        self._sums = metadata.get("blocks", "").split()
        self._train, test = (head[key]["shape"][0] for key in ("train", "test"))
        begin, end = head["train"]["data_offsets"]
        row_bytes = (end - begin) // max(1, self._train)
        if self._sums:
            rows = block_ranges(self._train, test, int(metadata["block_rows"]))
            self._ranges = [(start + begin + first * row_bytes, (last - first) * row_bytes) for first, last in rows]
        else:  # an old file has no checksums, so it is fetched as one part, and `ImageSet.load` checks it
            rows, self._ranges = [(0, self._train + test)], [(start, size - start)]
        self._rows = rows  # (first row, end) of each part; `_ranges` are its offset and its number of bytes

    @property
    def here(self) -> set[int]:
        """Numbers of the parts that were fetched."""
        return {int(line) for line in self._journal.read_text().split()}

    @property
    def complete(self) -> bool:
        return self.here >= set(range(len(self._rows)))

    def missing(self, train_images: int | None) -> list[int]:
        """The numbers of the parts that are needed and were not fetched yet.

        A part is needed if it holds a test image or one of the first `train_images` training images (None: all of them).
        """
        limit = self._train if train_images is None else train_images
        wanted = {number for number, (first, _) in enumerate(self._rows) if first < limit or first >= self._train}
        return sorted(wanted - self.here)

    def fetch(self, number: int) -> None:
        """Read one part, check it, and write it to its place. Raises `UserError` if it is damaged."""
        at, size = self._ranges[number]
        content = self._read(at, size)
        if self._sums and hashlib.sha256(content).hexdigest() != self._sums[number]:
            first, end = self._rows[number]
            raise UserError(f"the study's images are damaged (rows {first:,} to {end - 1:,}); run the study again")
        with self._lock:
            with self.path.open("r+b") as file:
                file.seek(at)
                file.write(content)
                file.flush()
                os.fdatasync(file.fileno())
            with self._journal.open("a") as journal:
                journal.write(f"{number}\n")

    def _begin(self, size: int) -> None:
        """Fetch the header and the labels, and reserve room for the images."""
        head = self._read(0, min(size, HEAD))
        length = 8 + int.from_bytes(head[:8], "little")
        if length > size:
            raise UserError("the study's images are damaged: the header does not fit into the file; run the study again")
        if length > len(head):
            head += self._read(len(head), length - len(head))
        with self.path.open("w+b") as file:
            file.write(head[:length])
            file.truncate(size)
            file.flush()
            described, metadata, start = read_header(self.path)
            labels = start + min(described["train"]["data_offsets"][0], described["test"]["data_offsets"][0])
            content = self._read(length, labels - length) if labels > length else b""
            if metadata.get("labels") and hashlib.sha256(content).hexdigest() != metadata["labels"]:
                raise UserError("the study's images are damaged: the labels do not match their checksum; run the study again")
            file.write(content)
        self._journal.write_text("")
