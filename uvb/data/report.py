"""ReadReport: what was read, said before anything is trained and kept for the report."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uvb.data.survey import counts_of

Labels = NDArray[np.int64] | None

MOST_NAMES = 12  # classes that a line names


@dataclass(frozen=True)
class SplitRead:
    """One of the two sets that are used.

    Attributes:
        role: "train" or "test".
        origin: where its images come from, in words.
        images: how many.
        classes: images of each class, in the order of `ReadReport.classes`; empty without labels.
    """

    role: str
    origin: str
    images: int
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class SkippedFiles:
    """What was not read: why, how many, and one of them."""

    why: str
    count: int
    example: str


@dataclass(frozen=True)
class ReadReport:
    """What was read of a data set.

    Attributes:
        source: the name or path that was asked for.
        kind: what was found there, in words.
        splits: the training set and the test set.
        shape: (C, H, W) of an image.
        levels: the pixel value that means 1.0.
        darkest: the smallest pixel value of both sets.
        brightest: the largest.
        mean: the mean pixel of the training set, in units of [0, 1].
        classes: names of the classes, in the order of their numbers; empty without labels.
        skipped: what was not read.
        warnings: what is doubtful, a line each.
    """

    source: str
    kind: str
    splits: tuple[SplitRead, ...]
    shape: tuple[int, int, int]
    levels: int
    darkest: int
    brightest: int
    mean: float
    classes: tuple[str, ...] = ()
    skipped: tuple[SkippedFiles, ...] = field(default=())
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report in plain lines; warnings come last and begin with "warning:"."""
        channels, height, width = self.shape
        colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
        said = [f"data: {self.source} ({self.kind}), {width}×{height} {colour}"]
        said += [f"  {split.role}: {split.images:,} images from {split.origin}" for split in self.splits]
        if self.classes:
            names = ", ".join(self.classes[:MOST_NAMES]) + (", ..." if len(self.classes) > MOST_NAMES else "")
            said.append(f"  {len(self.classes)} class{'es' * (len(self.classes) != 1)}: {names}")
        else:
            said.append("  no labels")
        said.append(
            f"  pixels from {self.darkest} to {self.brightest} of {self.levels}, mean {self.mean:.3f} of the training set"
        )
        said += [f"  not read: {item.count:,} {item.why}, such as {item.example}" for item in self.skipped]
        return said + [f"warning: {line}" for line in self.warnings]

    def held_out(self, train: Labels, test: Labels, counts: tuple[int, int]) -> "ReadReport":
        """The report of the part of the training set that still trains, and of the part held out of it.

        Args:
            train: labels of the first part.
            test: labels of the second.
            counts: images of each.
        """
        origin = self.splits[0].origin
        number = len(self.classes)
        splits = (
            SplitRead("train", f"{origin}: those not held out", counts[0], counts_of(train, number)),
            SplitRead("test", f"{origin}: held out to choose by", counts[1], counts_of(test, number)),
        )
        return replace(self, splits=splits)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_json(blob: dict[str, Any]) -> "ReadReport":
        splits = tuple(SplitRead(**{**split, "classes": tuple(split["classes"])}) for split in blob["splits"])
        skipped = tuple(SkippedFiles(**item) for item in blob["skipped"])
        plain = {key: tuple(blob[key]) for key in ("shape", "classes", "warnings")}
        return ReadReport(**{**blob, **plain, "splits": splits, "skipped": skipped})
