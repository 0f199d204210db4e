"""Describe in one line an error that is not the user's fault, and log its traceback."""

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
    """Something that the command needs has failed. The command prints the message as one line and exits with code 1.

    For a user's mistake, raise `uvb.errors.UserError` instead.
    """


def last_line(error: BaseException) -> str:
    """The error's type and the last line of its message. In a traceback from Ray the last line says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".rstrip(": ")


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
    try:
        handle, path = tempfile.mkstemp(prefix="uvb-error-", suffix=".log")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except OSError:  # the disk is full
        return "no file, since none can be written"
    return path
