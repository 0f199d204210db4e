"""Names of data sets. Unlike `uvb.data`, this file does not import torch, so commands parse their options quickly."""

import re

FILE_SUFFIXES = (".parquet", ".arrow", ".npz", ".npy")


def dataset_stem(dataset: str) -> str:
    """The short name of a data set.

    The name of a known data set stays as it is. A path gives its last part without the suffix: ``a/faces.npz`` gives ``faces``.
    A name on the Hugging Face hub gives the name and the configuration, without the owner: ``hf:owner/name:config`` gives
    ``name-config``.
    """
    if dataset.startswith("hf:"):
        name, _, config = dataset.removeprefix("hf:").partition(":")
        return "-".join(part for part in (name.rsplit("/", 1)[-1], config) if part)
    last = re.split(r"[/\\]", dataset.rstrip("/\\"))[-1]
    suffix = next((suffix for suffix in FILE_SUFFIXES if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(suffix)].strip(".")
