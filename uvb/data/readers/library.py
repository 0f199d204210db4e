"""Hugging Face `datasets`, imported where it is needed: quiet, without remote code, and offline unless told otherwise."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from uvb.errors import UserError


def import_datasets() -> Any:
    """The module ``datasets``, without its progress bars and log lines. No version since 4 runs a data set's own code.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "Parquet, Arrow and the Hugging Face hub are read by the package datasets, which is not installed; "
            "pip install 'uvb-study[study]', or pip install datasets"
        ) from error
    if int(datasets.__version__.split(".")[0]) < 4:
        raise UserError(f"datasets {datasets.__version__} may run a data set's own code; pip install 'datasets>=4'")
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    return datasets


@contextmanager
def offline(datasets: Any) -> Iterator[None]:
    """Within the block the library asks no network."""
    import huggingface_hub.constants as hub

    before = datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before
