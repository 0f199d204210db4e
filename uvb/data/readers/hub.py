"""Data sets of the Hugging Face hub, by name: downloaded where there is a network, from the local cache where there is none."""

import os
from contextlib import nullcontext
from typing import Any

from uvb.data._download import reachable
from uvb.data.readers.library import import_datasets, offline
from uvb.data.readers.source import Source
from uvb.data.readers.tables import Columns, from_datasets
from uvb.errors import UserError


def load_hub(name: str, download: bool = True) -> dict[str, Any]:
    """The `datasets.Dataset` of each split of ``owner/name[:config]``, memory-mapped.

    Raises:
        UserError: there is no such data set, or neither a network nor a copy in the library's cache.
    """
    repository, _, config = name.partition(":")
    if not repository or repository.count("/") > 1:
        raise UserError(f"--dataset hf:{name}: give hf:owner/name, or hf:owner/name:config")
    datasets = import_datasets()
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    online = download and not datasets.config.HF_HUB_OFFLINE and reachable(endpoint)
    try:
        with nullcontext() if online else offline(datasets):
            loaded = datasets.load_dataset(repository, config or None)
    except Exception as error:  # the library raises of many kinds
        reason = " ".join(str(error).split())[:300]
        if online:
            raise UserError(
                f"hf:{name} cannot be read ({reason}); see the data set's page for its name and configurations"
            ) from error
        raise UserError(
            f"hf:{name} is not in the local cache, and {endpoint} cannot be reached; run once with a network, or give the "
            "folder of a clone"
        ) from error
    return dict(loaded)


def read_hub(splits: dict[str, Any], columns: Columns, name: str) -> Source:
    """The source of what `load_hub` gave."""
    return from_datasets(splits, columns, "the Hugging Face hub", f"hf:{name}")


def fingerprint(splits: dict[str, Any]) -> tuple[str, ...]:
    """What changes when the data set does."""
    return tuple(f"{split} {dataset._fingerprint} {len(dataset)}" for split, dataset in splits.items())
