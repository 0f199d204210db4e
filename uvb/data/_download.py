"""Download one file, known by its md5 sum: with little patience, and whole or not at all."""

import hashlib
import logging
import os
import queue
import shutil
import threading
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from uvb.errors import UserError

PATIENCE = 8.0
"""Seconds to wait for an answer, and then for each piece of the file."""

_log = logging.getLogger(__name__)


def has_md5(path: Path, md5: str) -> bool:
    """Whether `path` is a file with this md5 sum."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def fetch(urls: Sequence[str], target: Path, md5: str) -> None:
    """Download the file with this md5 sum to `target`, from the first of `urls` that has it. A file that is right stays.

    Raises:
        UserError: no address gave it. The line says why, for each address.
    """
    if has_md5(target, md5):
        return
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    reasons = []
    for url in urls:
        try:
            with _open(url) as response:
                _log.info("downloading %s into %s", url, target.parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                with part.open("wb") as file:
                    shutil.copyfileobj(response, file, 1 << 20)
            if has_md5(part, md5):
                part.replace(target)
                return
            reasons.append(f"{url}: the file there has another md5 sum")
        except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors; so is a full disk
            reasons.append(f"{url}: {' '.join(str(error).split())}")
        finally:
            part.unlink(missing_ok=True)
    raise UserError(f"cannot download {target.name} ({'; '.join(reasons)})")


def reachable(url: str) -> bool:
    """Whether a server answers at `url` at all, be it with an error."""
    try:
        _open(url).close()
    except (OSError, HTTPException) as error:
        return getattr(error, "code", None) is not None  # an HTTP status is an answer
    return True


def _open(url: str) -> Any:
    """Open a URL, but give up after `PATIENCE`, also while a name is resolved, where no socket time-out counts."""
    answer: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=PATIENCE))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()  # the process may end while it waits
    try:
        outcome = answer.get(timeout=PATIENCE + 1)
    except queue.Empty:
        raise TimeoutError(f"no answer within {PATIENCE:g} s") from None
    if isinstance(outcome, OSError):
        raise outcome
    if isinstance(outcome, Exception):
        raise OSError(str(outcome)) from outcome
    return outcome
