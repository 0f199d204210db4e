"""Files that a program can read to their end."""

import errno
from pathlib import Path


def regular(path: Path) -> Path:
    """Return `path` if it is a file or does not exist. Reading a pipe may wait for ever, and a device may have no end.

    Raises:
        OSError: the path is a folder, a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path
