"""What every reader returns: the splits, divided into pieces that can be read independently, and what was skipped."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uvb.data.readers.decode import Decoding, Target, decode
from uvb.data.report import Skipped
from uvb.errors import UserError, one_line

BLOCK = 256
"""Images that a process holds in memory at once."""

PIECE = 512
"""Images in one piece of encoded pictures. An interrupted conversion loses only the pieces that were in progress."""


class NeedsChannels(Exception):
    """Raised when an image shows that the whole set must be read with `channels` channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.channels = channels


@dataclass(frozen=True)
class Piece(ABC):
    """A group of images that one process reads together."""

    count: int

    @abstractmethod
    def blocks(self, decoding: Decoding, target: Target | None) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Yield the images in blocks: uint8 (n, C, H, W), and how many of the n images were converted from grey to colour.

        `target` is the shape that all images must have. Without it, the first block has only the first image, which tells the
        shape.

        Raises:
            UserError: an image is damaged or does not fit.
            NeedsChannels: the target has the wrong number of channels.
        """

    @abstractmethod
    def where(self, row: int) -> str:
        """How error messages name the image with this number."""


@dataclass(frozen=True)
class EncodedPiece(Piece):
    """Pictures that must be decoded."""

    @abstractmethod
    def contents(self) -> Iterator[bytes | Path]:
        """Yield the encoded pictures, in order."""

    def blocks(self, decoding: Decoding, target: Target | None) -> Iterator[tuple[NDArray[np.uint8], int]]:
        if target is None:
            yield decode(next(self.contents()), self.where(0), decoding)[None], 0
            return
        contents = enumerate(self.contents())
        for start in range(0, self.count, BLOCK):
            block = np.empty((min(BLOCK, self.count - start), *target.shape), np.uint8)
            widened = 0
            for place in range(len(block)):
                row, content = next(contents)
                image = self._decoded(content, row, decoding, target)
                widened += len(image) < target.shape[0]
                block[place] = image  # numpy repeats a single grey channel
            yield block, widened

    def _decoded(self, content: bytes | Path, row: int, decoding: Decoding, target: Target) -> NDArray[np.uint8]:
        image, channels = decode(content, self.where(row), decoding, target), target.shape[0]
        if len(image) > channels:  # perhaps a grey WebP, which Pillow decodes to RGB because WebP has no grey mode
            if not is_grey(image):
                raise NeedsChannels(len(image))
            return image[:1]
        if len(image) < channels and not target.settled:  # the first picture may be a grey WebP, so C = 3 was a guess
            raise NeedsChannels(len(image))
        return image


def is_grey(image: NDArray[np.uint8]) -> bool:
    """Whether all channels of a (C, H, W) image are equal."""
    return bool((image == image[:1]).all())


@dataclass(frozen=True)
class Split:
    """One split, such as "train", before conversion.

    Attributes:
        name: the name of the split in the files.
        origin: where the split comes from, in words.
        pieces: the images, in order.
        labels: integers or strings (N,), or None.
    """

    name: str
    origin: str
    pieces: tuple[Piece, ...]
    labels: NDArray[Any] | None = None

    @property
    def count(self) -> int:
        return sum(piece.count for piece in self.pieces)


@dataclass
class Source:
    """A data set before it is converted.

    Attributes:
        kind: the kind of the files, in words.
        splits: all splits that were found. Images that belong to no named split form the split "all".
        class_names: names of the integer labels, if the files have them.
        skipped: what was not read.
        warnings: what is doubtful, one line each.
    """

    kind: str
    splits: list[Split]
    class_names: tuple[str, ...] = ()
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@contextmanager
def naming_damage(line: Callable[[str], str], *kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of `kinds` into a `UserError`. `line` makes its message from the message of the exception."""
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise UserError(line(one_line(error))) from error
