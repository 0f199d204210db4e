"""The usual names of splits, which all readers use. Upper and lower case do not matter."""

import re

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_BY_NAME = {name: split for split, names in _SPLITS.items() for name in names}


def split_of(name: str) -> str | None:
    """The split that the name of a folder or an array means: "train", "validation" or "test". None for other names."""
    return _BY_NAME.get(name.lower())


def split_in(stem: str) -> str | None:
    """The first split that a file's name mentions, e.g. "train" in "cifar10-train-00000-of-00002". None if there is none."""
    words = re.split(r"[^a-z]+", stem.lower())
    return next((split for word in words if (split := _BY_NAME.get(word))), None)
