"""Errors that are not the user's: how they are told, and where their tracebacks go."""

import os
import tempfile
import time
import traceback
from typing import TYPE_CHECKING

from pipelines.files.masking import masked

if TYPE_CHECKING:
    from pipelines.files.store import Store

LOG = "errors.log"  # in the study's folder


class CommandFailed(Exception):
    """Something broke under the command, which ends with this one line and exit code 1.

    Mistakes of the user are `uvb.errors.UserError`.
    """


def last_line(error: BaseException) -> str:
    """The line of a (remote) traceback that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".rstrip(": ")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def log_error(error: BaseException, store: "Store | None" = None) -> str:
    """Append the traceback of `error` to a log file, in the study's folder if that can be written; returns where."""
    text = f"--- {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}\n{''.join(traceback.format_exception(error))}"
    data = masked(text).encode()
    if store is not None:
        try:
            before = store.read_bytes(LOG) if store.exists(LOG) else b""
            store.write_bytes(LOG, before + data)
            return masked(store.join(LOG))
        except Exception:  # the store may be what broke
            pass
    handle, path = tempfile.mkstemp(prefix="uvb-error-", suffix=".log")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return path
