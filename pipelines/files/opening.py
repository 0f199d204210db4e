"""Open stores. Every address answers within seconds, or is refused with the reason."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyarrow import fs as arrow

from pipelines.files.masking import masked
from pipelines.leaving import stubborn
from uvb.errors import UserError

ARROW = {"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"}  # schemes that Arrow opens; fsspec opens the others
ANSWER_SECONDS = 7.0  # until a store counts as silent; a command takes about 2 s before it asks
ADVICE = "give a local path or a URI such as s3://bucket/folder"

T = TypeVar("T")


def is_remote(address: str) -> bool:
    """Whether `address` is a URI that leads away from this machine's disk."""
    return "://" in address and not address.startswith("file://")


def local_path(address: str) -> Path:
    """The absolute path of a local address.

    Raises:
        UserError: the address names the home of an unknown user, or looks like a URI that lacks a slash.
    """
    text = os.path.expanduser(address.removeprefix("file://"))
    if text.startswith("~"):
        raise UserError(f"{address}: there is no such user; {ADVICE}")
    if re.match(r"\w+:/", text):
        raise UserError(f"{address}: a URI has two slashes after its colon; {ADVICE}")
    return Path(os.path.abspath(text))  # absolute, since Ray's workers run in another directory


def split_remote(uri: str) -> tuple[str, str]:
    """A URI without its options, and its options with their question mark, such as ``?endpoint_override=...``.

    Raises:
        UserError: it names no kind of store, or no bucket.
    """
    scheme, _, rest = uri.partition("://")
    if not scheme or not rest.partition("?")[0].strip("/"):
        raise UserError(f"{masked(uri)}: the URI names no {'bucket' if scheme else 'kind of store'}; {ADVICE}")
    address, mark, options = uri.partition("?") if scheme in ARROW else (uri, "", "")
    return address.rstrip("/"), mark + options


def open_remote(uri: str) -> tuple[arrow.FileSystem, str]:
    """The file system behind `uri`, and the path in it.

    Raises:
        UserError: the URI is of an unknown kind, or the store does not answer.
    """
    return answered(uri, lambda: _from_uri(uri))


def _from_uri(uri: str) -> tuple[arrow.FileSystem, str]:
    if uri.partition("://")[0] in ARROW:
        filesystem, base = arrow.FileSystem.from_uri(uri)  # asks for a bucket's region
        return filesystem, base.rstrip("/")
    import fsspec

    filesystem, base = fsspec.core.url_to_fs(uri)
    return arrow.PyFileSystem(arrow.FSSpecHandler(filesystem)), base.rstrip("/")


def answered(uri: str, ask: Callable[[], T]) -> T:
    """What `ask` returns within `ANSWER_SECONDS`.

    Raises:
        UserError: `ask` raised anything, or did not return in time.
    """
    answer: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(ask())
        except BaseException as error:  # each kind of store has its own exceptions
            errors.append(error)

    thread = stubborn(threading.Thread(target=work, daemon=True))  # a silent store blocks it for a minute or more
    thread.start()
    thread.join(ANSWER_SECONDS)
    if answer:
        return answer[0]
    if not errors:
        raise UserError(
            f"{masked(uri)} does not answer within {ANSWER_SECONDS:g} s; check address, network and credentials, or {ADVICE}"
        )
    if isinstance(errors[0], UserError):
        raise errors[0]
    reason = masked(" ".join(str(errors[0]).split()) or type(errors[0]).__name__)[:300]
    raise UserError(f"cannot open {masked(uri)}: {reason}; {ADVICE}") from errors[0]
