"""Files that a program can read to their end."""

import errno
from pathlib import Path


def regular(path: Path) -> Path:
    """Return `path`, unless something other than a file is there. Reading a pipe may wait for ever; a device may never end.

    Raises:
        OSError: it is a folder, a pipe, a socket or a device. Nothing is raised where nothing is there.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path
