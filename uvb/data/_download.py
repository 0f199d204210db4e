"""Download one file and check its md5 sum. Give up on slow servers soon. A file appears only when it is complete."""

import hashlib
import logging
import shutil
import threading
import urllib.request
from collections.abc import Sequence
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from typing import Any

from uvb.atomic import replacing
from uvb.errors import UserError, one_line

PATIENCE = 8.0
"""Seconds to wait for a server's answer, and then for each piece of the file."""

_FAILURES = (OSError, HTTPException, ValueError)  # OSError includes URLError, time-outs and a full disk

_log = logging.getLogger(__name__)


def has_md5(path: Path, md5: str) -> bool:
    """Whether `path` is a file with this md5 sum."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def fetch(urls: Sequence[str], target: Path, md5: str) -> None:
    """Download a file with this md5 sum to `target`, from the first of `urls` that has it.

    If `target` already has this sum, nothing is downloaded.

    Raises:
        UserError: the file could not be downloaded from any address. The message has the reason for each address.
    """
    if has_md5(target, md5):
        return
    reasons = []
    for url in urls:
        try:
            with _open(url) as response, replacing(target) as temporary:
                _log.info("downloading %s into %s", url, target.parent)
                with temporary.open("wb") as file:
                    shutil.copyfileobj(response, file, 1 << 20)
                if not has_md5(temporary, md5):
                    raise ValueError("the downloaded file has another md5 sum")
            return
        except _FAILURES as error:
            reasons.append(f"{url}: {one_line(error)}")
    raise UserError(f"cannot download {target.name} ({'; '.join(reasons)})")


def reachable(url: str) -> bool:
    """Whether a server answers at `url`. An HTTP error counts as an answer."""
    try:
        _open(url).close()
    except _FAILURES as error:
        return getattr(error, "code", None) is not None  # only HTTP errors have a code
    return True


def _open(url: str) -> Any:
    """Open a URL within `PATIENCE`, in a thread, because the time-out of a socket does not cover the name lookup (DNS)."""
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=PATIENCE))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()  # a daemon, so that the process can end while the thread waits
    try:
        return answer.result(PATIENCE + 1)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"no answer within {PATIENCE:g} s") from None  # a Future's time-out has no message
