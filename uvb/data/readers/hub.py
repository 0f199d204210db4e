"""Import Hugging Face's package `datasets` when it is needed, and load data sets from the Hugging Face hub."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from uvb.data._download import reachable
from uvb.errors import UserError, one_line


def import_datasets() -> Any:
    """The module ``datasets``, without progress bars and log lines.

    Raises:
        UserError: the package is not installed, or is older than version 4. Such old versions may run a data set's own code.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "reading Parquet, Arrow or the Hugging Face hub needs the package datasets, which is not installed; "
            "pip install 'uvb-study[study]', or pip install datasets"
        ) from error
    if int(datasets.__version__.split(".")[0]) < 4:
        raise UserError(f"datasets {datasets.__version__} may run a data set's own code; pip install 'datasets>=4'")
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    return datasets


@contextmanager
def offline(datasets: Any) -> Iterator[None]:
    """Inside this block, keep `datasets` and the hub's client off the network."""
    import huggingface_hub.constants as hub

    before = datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before


def load_hub(name: str, download: bool = True) -> dict[str, Any]:
    """Load ``owner/name[:config]``: a memory-mapped `datasets.Dataset` for each split.

    The data set is downloaded if `download` is True and the hub can be reached. Otherwise it comes from `datasets`' cache.

    Raises:
        UserError: there is no such data set, or there is neither a network nor a copy in the cache.
    """
    repository, _, config = name.partition(":")
    if not repository or repository.count("/") > 1:
        raise UserError(f"--dataset hf:{name}: give hf:owner/name, or hf:owner/name:config")
    datasets = import_datasets()
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    online = download and not datasets.config.HF_HUB_OFFLINE and reachable(endpoint)
    try:
        with nullcontext() if online else offline(datasets):
            return dict(datasets.load_dataset(repository, config or None))
    except Exception as error:  # `datasets` raises many kinds of exceptions
        if online:
            raise UserError(
                f"hf:{name} cannot be read ({one_line(error)}); see the data set's page for its name and configurations"
            ) from error
        why = f"{endpoint} cannot be reached"
        if not download:
            why = "downloads are off"
        elif datasets.config.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE forbids the network"
        raise UserError(
            f"hf:{name} is not in the local cache, and {why}; run once with a network, or give the folder of a clone"
        ) from error
