"""Open stores: folders, local or in a bucket. If an address does not answer within seconds, raise `UserError`."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyarrow import fs as arrow

from pipelines.asking import Question, Silent
from pipelines.files.masking import masked
from uvb.errors import UserError

ARROW = {"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"}  # schemes that Arrow opens; fsspec opens the others
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
        UserError: the URI names no kind of store, or no bucket.
    """
    scheme, _, rest = uri.partition("://")
    if not scheme or not rest.partition("?")[0].strip("/"):
        raise UserError(f"{masked(uri)}: the URI names no {'bucket' if scheme else 'kind of store'}; {ADVICE}")
    address, mark, options = uri.partition("?") if scheme in ARROW else (uri, "", "")
    return address.rstrip("/"), mark + options


def from_uri(uri: str) -> tuple[arrow.FileSystem, str]:
    """The file system behind `uri`, and the path in that file system. This may take minutes, so call it through `asked`."""
    if uri.partition("://")[0] in ARROW:
        filesystem, base = arrow.FileSystem.from_uri(uri)  # asks for a bucket's region
        return filesystem, base.rstrip("/")
    import fsspec

    filesystem, base = fsspec.core.url_to_fs(uri)
    return arrow.PyFileSystem(arrow.FSSpecHandler(filesystem)), base.rstrip("/")


def asked(uri: str, ask: Callable[[], T]) -> Callable[[], T]:
    """Start `ask`, a request to the store at `uri`, in a thread. Return a function that waits for the result of `ask`.

    Raises:
        UserError: there is no such kind of store. The returned function raises one if `ask` fails or does not return in time.
    """
    _import_kind(uri)
    question = Question(ask)

    def answer() -> T:
        try:
            return question.answer()
        except (UserError, KeyboardInterrupt):  # a person may stop the wait
            raise
        except Silent as silent:
            raise UserError(
                f"{masked(uri)} does not answer within {round(silent.seconds, 1):g} s; "
                f"check address, network and credentials, or {ADVICE}"
            ) from silent
        except BaseException as error:  # each kind of store has its own exceptions
            raise _cannot_open(uri, error) from error

    return answer


def _import_kind(uri: str) -> None:
    """Import the code of a kind of store before a thread needs it, because two threads must not import at the same time."""
    scheme = uri.partition("://")[0]
    if scheme in ARROW:
        return
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme.partition("::")[0])
    except (ValueError, ImportError) as error:
        raise _cannot_open(uri, error) from error


def _cannot_open(uri: str, error: BaseException) -> UserError:
    reason = masked(" ".join(str(error).split()) or type(error).__name__)[:300]
    return UserError(f"cannot open {masked(uri)}: {reason}; {ADVICE}")
