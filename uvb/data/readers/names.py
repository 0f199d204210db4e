"""The names of splits, in any case: one list for every reader."""

import re

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_BY_NAME = {name: split for split, names in _SPLITS.items() for name in names}


def split_of(name: str) -> str | None:
    """The split that a folder or an array of this name is: "train", "validation" or "test"; None for other names."""
    return _BY_NAME.get(name.lower())


def split_in(stem: str) -> str | None:
    """The split that a file's name contains, e.g. "train" of "cifar10-train-00000-of-00002"; None if it contains none."""
    words = re.split(r"[^a-z]+", stem.lower())
    return next((split for word in words if (split := _BY_NAME.get(word))), None)
