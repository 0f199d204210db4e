"""What every reader hands over: splits, each in pieces that can be read apart, and what was skipped."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uvb.data.readers.decode import Decoding, First, OddSize, decode, describe
from uvb.errors import UserError

BLOCK = 256
"""Images that are held in memory at once."""

PIECE = 512
"""Images of a piece of encoded pictures: the unit of work, and of what is resumed."""


class NeedsChannels(Exception):
    """The set must be read with so many channels: raised where an image shows it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.channels = channels


class Target(NamedTuple):
    """What every image must become: the (C, H, W) of `first`. `settled`: whether C is known to be right for all."""

    first: First
    settled: bool


@dataclass(frozen=True)
class Piece(ABC):
    """Images that are read together, by any process."""

    count: int

    @abstractmethod
    def blocks(self, decoding: Decoding, target: Target | None) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Yield uint8 (n, C, H, W), in order, and how many of the n were grey among colours.

        Without a target the first block holds the first image alone.

        Raises:
            UserError: an image is damaged or does not fit.
            NeedsChannels: the target's channels are wrong.
        """

    @abstractmethod
    def where(self, row: int) -> str:
        """What to call an image in an error."""


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
        block: NDArray[np.uint8] | None = None
        filled = widened = 0
        for row, content in enumerate(self.contents()):
            if block is None:
                block = np.empty((min(BLOCK, self.count - row), *target.first.shape), np.uint8)
            image = self._decoded(content, row, decoding, target)
            widened += len(image) < len(block[0])
            block[filled] = image  # one grey channel is repeated
            filled += 1
            if filled == len(block):
                yield block, widened
                block, filled, widened = None, 0, 0

    def _decoded(self, content: bytes | Path, row: int, decoding: Decoding, target: Target) -> NDArray[np.uint8]:
        channels, height, width = target.first.shape
        try:
            image = decode(content, self.where(row), decoding, (height, width))
        except OddSize as odd:
            raise UserError(
                f"{odd.where} is {describe(odd.shape)}, but {target.first.where} is {describe(target.first.shape)}; all images "
                "must have one size: --resize N with --center-crop makes them so"
            ) from None
        if len(image) > channels:  # WebP knows no grey, so its greys come as colours
            if not is_grey(image):
                raise NeedsChannels(len(image))
            return image[:1]
        if len(image) < channels and not target.settled:
            raise NeedsChannels(len(image))
        return image


def is_grey(image: NDArray[np.uint8]) -> bool:
    """Whether all channels of a (C, H, W) image are the same."""
    return bool((image == image[:1]).all())


@dataclass(frozen=True)
class Skipped:
    """Something that was not read: why, how many, and one of them."""

    why: str
    count: int
    example: str


@dataclass(frozen=True)
class Split:
    """One split as it lies on the disk: its name there, where it comes from, its pieces and its labels (N,)."""

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
        kind: what it is, in words.
        splits: all that were found. One that nothing names is called "all".
        class_names: what integer labels mean, where the files say it.
        skipped: what was not read.
        warnings: what is doubtful.
    """

    kind: str
    splits: list[Split]
    class_names: tuple[str, ...] = ()
    skipped: list[Skipped] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
