"""Choose which splits form the training and the test set, order the images, and number the labels."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from uvb.data.readers.names import split_of
from uvb.data.readers.source import Source, Split
from uvb.data.report import Skipped
from uvb.errors import UserError

MOST_CLASSES = 1000  # more classes give a warning


class Wanted(NamedTuple):
    """Names of the splits that the user chose. If they are empty, the splits with the usual names are used."""

    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @staticmethod
    def parse(words: tuple[str, ...]) -> "Wanted":
        """Parse words such as ``train=a+b test=c``. Raises `UserError` for words of another form."""
        chosen: dict[str, tuple[str, ...]] = {}
        for word in words:
            role, equals, names = word.partition("=")
            if role not in ("train", "test") or not equals or not names or role in chosen:
                raise UserError(f"--split {' '.join(words)}: give train=NAME test=NAME; NAME+NAME joins two splits")
            chosen[role] = tuple(names.split("+"))
        if chosen and "train" not in chosen:
            raise UserError(f"--split {' '.join(words)}: the training split is missing; add train=NAME")
        if shared := set(chosen.get("train", ())) & set(chosen.get("test", ())):
            raise UserError(f"--split: {', '.join(sorted(shared))} is in both train and test; no image may be in both")
        return Wanted(chosen.get("train", ()), chosen.get("test", ()))


@dataclass
class Choice:
    """The splits that form the training set, the splits that form the test set, and the images that are left out.

    If `test` is empty, `order_of` makes a tenth of the training images the test set.
    """

    train: list[Split]
    test: list[Split]
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int]:
        return sum(split.count for split in self.train), sum(split.count for split in self.test)


def choose(source: Source, wanted: Wanted, where: str) -> Choice:
    """Choose the splits that the user names, or else the splits with the usual names.

    The split "test" becomes the test set, or the split "validation" if there is no "test". If there are both, "validation"
    joins the training set, because a study that selects models holds out its own images for that. If no split has a usual
    name, all images form the training set.

    Raises:
        UserError: a wanted split is missing or named twice, there is only a test set, or a set is empty.
    """
    if wanted.train:
        chosen = Choice(_named(source, wanted.train, where), _named(source, wanted.test, where))
        # "validation" and "val" may be two names of one split, so count the splits, not the names.
        counts = Counter(split.name for split in (*chosen.train, *chosen.test))
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise UserError(f"{where}: --split names {', '.join(repeated)} twice; no image may count twice, so name it once")
    else:
        by_name: dict[str, list[Split]] = {}
        for split in source.splits:
            by_name.setdefault(split_of(split.name) or split.name, []).append(split)
        train, validation, test = (by_name.get(name, []) for name in ("train", "validation", "test"))
        chosen = Choice(train + validation, test) if train and test else Choice(train, test or validation)
        if chosen.test and not chosen.train:
            raise UserError(
                f"{where}: it has a test set ({chosen.test[0].origin}), but no training set; add training images, or name "
                "their split with --split train=..."
            )
        chosen.train = chosen.train or by_name.get("all", source.splits)
    used = {id(split) for split in (*chosen.train, *chosen.test)}
    chosen.skipped = [
        Skipped(f"images of the split {split.name}", split.count, split.origin)
        for split in source.splits
        if id(split) not in used
    ]
    _require_images(chosen, where)
    return chosen


def shuffled(count: int) -> NDArray[np.int64]:
    """A fixed random order of `count` images: ``torch.randperm(count)`` with a CPU generator of seed 0."""
    order: NDArray[np.int64] = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    return order


def order_of(choice: Choice) -> tuple[NDArray[np.int64], int]:
    """The order in which images are stored, int64 (N,), and the number of training images. Training images come first.

    An image's number is its position in the chosen splits, joined in order. Training images are shuffled, so that the first
    ones belong to all classes. Without a test set, a tenth of the images (rounded, at least two) becomes the test set.
    """
    train, test = choice.counts
    order = shuffled(train)
    if test:
        return np.concatenate([order, np.arange(train, train + test)]), train
    tenth = max(2, round(train / 10))
    return np.concatenate([order[tenth:], order[:tenth]]), train - tenth


class Labels(NamedTuple):
    """The int64 labels (N,) of the training and the test set, or None for a set without labels, and the classes' names."""

    train: NDArray[np.int64] | None
    test: NDArray[np.int64] | None
    classes: tuple[str, ...]


def number_labels(choice: Choice, source: Source, order: NDArray[np.int64], train_images: int, where: str) -> Labels:
    """Number the labels of the training and the test set from 0, in sorted order, and name the classes.

    Warnings are added to `source`.

    Raises:
        UserError: one set has integers and the other has strings.
    """
    train, test = (_joined(splits, role, source) for splits, role in ((choice.train, "training"), (choice.test, "test")))
    if train is not None and not choice.test:  # `order` divides the images into a training and a test set
        train, test = np.split(train[order], [train_images])
    elif train is not None:
        train = train[order[:train_images]]  # the test images keep their order
    given = [labels for labels in (train, test) if labels is not None]
    if len({labels.dtype.kind == "U" for labels in given}) > 1:
        raise UserError(f"{where}: training and test labels must both be integers, or both strings")
    if not given:
        return Labels(None, None, ())
    values = np.unique(np.concatenate(given))
    if len(values) > MOST_CLASSES:
        source.warnings.append(f"the labels have {len(values):,} values: leave them out if every image has its own label")
    if train is not None and test is not None and len(unknown := np.setdiff1d(test, train)):
        source.warnings.append(
            f"classes of the test set that are not in the training set: {len(unknown)}, such as {_name(unknown[0], source)}"
        )
    numbered = [None if labels is None else np.searchsorted(values, labels).astype(np.int64) for labels in (train, test)]
    return Labels(numbered[0], numbered[1], tuple(_name(value, source) for value in values))


def _named(source: Source, names: tuple[str, ...], where: str) -> list[Split]:
    """The splits with these names. "validation" also finds a split called "val", if no split has the exact name."""
    found = {kind: split for split in source.splits if (kind := split_of(split.name))}
    found |= {split.name: split for split in source.splits}
    for name in names:
        if name not in found:
            raise UserError(f"{where}: no split {name!r}; it has {', '.join(split.name for split in source.splits)}")
    return [found[name] for name in names]


def _require_images(choice: Choice, where: str) -> None:
    train, test = choice.counts
    if not train or (choice.test and not test):
        raise UserError(f"{where}: the {'test' if train else 'training'} set is empty; at least one image is needed")
    if not choice.test and train < 4:
        raise UserError(f"{where}: number of images: {train}; at least four are needed, two to train and two to test")
    for images, name in ((train, "training"), (test, "test")):
        if images == 1:
            raise UserError(f"{where}: its {name} set has one image; at least two are needed for a standard error")


def _joined(splits: list[Split], role: str, source: Source) -> NDArray[Any] | None:
    """The labels of several splits, joined. None if a split has no labels, or if a label is -1 ("hidden").

    If -1 and 1 are the only labels, they are two classes.
    """
    parts = [split.labels for split in splits]
    known = [part for part in parts if part is not None]
    if not known:
        return None
    if len(known) < len(parts) or len({part.dtype.kind == "U" for part in known}) > 1:
        source.warnings.append(f"the {role} labels are left out, because not all {role} images have labels of the same kind")
        return None
    labels = np.concatenate(known)
    hidden = int((labels == -1).sum()) if labels.dtype.kind in "iu" else 0
    if hidden and set(np.unique(labels)) != {-1, 1}:
        every = "all" if hidden == len(labels) else f"{hidden:,} of {len(labels):,}"
        source.warnings.append(f"the {role} labels are left out, because {every} of them are -1, which means hidden")
        return None
    return labels


def _name(value: Any, source: Source) -> str:
    """The name of a label's class: from the files if they name it, otherwise the label itself."""
    if isinstance(value, str) or not source.class_names or not 0 <= int(value) < len(source.class_names):
        return str(value)
    return source.class_names[int(value)]
