"""Errors that are not the user's fault: their lines, and a log for their tracebacks."""

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
    """Something that the command needs broke. The command ends with this one line and exit code 1.

    For a mistake of the user see `uvb.errors.UserError`.
    """


def last_line(error: BaseException) -> str:
    """The last line of an error's message, which says what happened in a remote traceback; its type stands before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".rstrip(": ")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def log_error(error: BaseException, store: "Store | None" = None) -> str:
    """Append the traceback of `error` to a log file, in the study's folder if possible; return the file's address."""
    text = f"--- {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}\n{''.join(traceback.format_exception(error))}"
    data = masked(text).encode()
    if store is not None:
        try:
            before = store.read_bytes(LOG) if store.exists(LOG) else b""
            store.write_bytes(LOG, before + data)
            return masked(store.join(LOG))
        except Exception:  # perhaps the store itself broke
            pass
    handle, path = tempfile.mkstemp(prefix="uvb-error-", suffix=".log")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return path
