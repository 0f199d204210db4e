"""ReadReport: what was read of a data set. Commands print it before they train. The study's report shows it too."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uvb.data.survey import Survey
from uvb.decoding import decoded
from uvb.words import counted

Labels = NDArray[np.int64] | None

MOST_NAMES = 12  # `ReadReport.lines` names at most this many classes


@dataclass(frozen=True)
class SplitRead:
    """The training set or the test set.

    Attributes:
        role: "train" or "test".
        origin: where its images come from, in words.
        images: how many images it has.
        classes: how many images each class has, in the order of `ReadReport.classes`. Empty without labels.
    """

    role: str
    origin: str
    images: int
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """Things of one kind that were not read: why, how many, and the name of one of them."""

    why: str
    count: int
    example: str


@dataclass(frozen=True)
class ReadReport:
    """What was read of a data set.

    Attributes:
        source: the name of the data set, or the absolute path of the user's images.
        kind: what kind of data was found there, in words.
        splits: the training set and the test set.
        shape: (C, H, W) of an image.
        levels: the pixel value that means 1.0.
        darkest: the smallest pixel value.
        brightest: the largest pixel value.
        mean: the mean pixel of the training set, in units of [0, 1].
        classes: names of the classes, in the order of their numbers. Empty without labels.
        skipped: what was not read.
        warnings: one line for each thing that is doubtful.
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
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as lines of text. Warnings come last and begin with "warning:"."""
        channels, height, width = self.shape
        colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
        said = [f"data: {self.source} ({self.kind}), {width}×{height} {colour}"]
        said += [f"  {split.role}: {counted(split.images, 'image')} from {split.origin}" for split in self.splits]
        if self.classes:
            names = ", ".join(self.classes[:MOST_NAMES]) + (", ..." if len(self.classes) > MOST_NAMES else "")
            said.append(f"  {len(self.classes)} {'class' if len(self.classes) == 1 else 'classes'}: {names}")
        else:
            said.append("  no labels")
        said.append(
            f"  pixel values from {self.darkest} to {self.brightest} ({self.levels} means 1.0); "
            f"mean of the training set: {self.mean:.3f}"
        )
        said += [f"  not read: {item.why}: {item.count:,}, such as {item.example}" for item in self.skipped]
        return said + [f"warning: {line}" for line in self.warnings]

    def held_out(self, train: Labels, test: Labels, counts: tuple[int, int]) -> "ReadReport":
        """The report of this data set after part of its training images were held out for model selection.

        Args:
            train: labels of the images that still train.
            test: labels of the images held out.
            counts: how many images still train, and how many are held out.
        """
        origin = self.splits[0].origin
        origins = f"{origin}: those not held out", f"{origin}: held out to choose models by"
        return replace(self, splits=splits_read(origins, counts, (train, test), len(self.classes)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types. `from_json` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_json(blob: dict[str, Any]) -> "ReadReport":
        return decoded(blob, ReadReport, "the report of what was read")


def splits_read(
    origins: Sequence[str], counts: Sequence[int], labels: Sequence[Labels], classes: int
) -> tuple[SplitRead, SplitRead]:
    """Describe the training set and the test set. Each sequence has one item for each of the two sets, in this order.

    `classes` is the number of classes.
    """
    train, test = (
        SplitRead(role, origin, count, () if found is None else tuple(np.bincount(found, minlength=classes).tolist()))
        for role, origin, count, found in zip(("train", "test"), origins, counts, labels, strict=True)
    )
    return train, test


def doubts(survey: Survey, test_images: int, levels: int) -> list[str]:
    """One warning for each doubtful thing about the pixels."""
    said = []
    if survey.brightest <= levels // 2:
        said.append(f"the brightest pixel is {survey.brightest} of {levels}: are the pixels scaled as they should be?")
    if survey.in_both:
        said.append(
            f"{survey.in_both:,} of {test_images:,} test images are identical to training images, so the test loss is too low"
        )
    return said
