"""Names of data sets. This file imports no torch, unlike `uvb.data`, so that commands parse their options quickly."""

import re

FILE_SUFFIXES = (".parquet", ".arrow", ".npz", ".npy")


def dataset_stem(dataset: str) -> str:
    """What a data set is called: a known name, a path's last part up to its suffix, or the hub's name and configuration."""
    if dataset.startswith("hf:"):
        name, _, config = dataset.removeprefix("hf:").partition(":")
        return "-".join(part for part in (name.rsplit("/", 1)[-1], config) if part)
    last = re.split(r"[/\\]", dataset.rstrip("/\\"))[-1]
    suffix = next((suffix for suffix in FILE_SUFFIXES if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(suffix)].strip(".")
