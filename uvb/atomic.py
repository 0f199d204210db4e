"""Files and folders that get their name only once they are whole: the one place that writes and then renames."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

TEMPORARY = ".tmp-"  # how the names of half-written files and folders begin


@contextmanager
def replacing(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a fresh path beside `target`. It is renamed to `target` at the end, or deleted where the block raises.

    The block may make a file or a folder there. What `target` was before stays until then, and is replaced.

    Args:
        durable: wait until the bytes are on the disk, so that a power cut leaves the old version or the new one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{uuid4().hex}-{target.name}")
    try:
        yield temporary
        if durable:
            for path in [*temporary.rglob("*"), temporary]:
                _sync(path)
        if temporary.is_dir() and target.exists():  # a rename does not replace a folder
            old = target.with_name(f"{TEMPORARY}{uuid4().hex}-{target.name}")
            target.rename(old)
            temporary.rename(target)
            delete(old)
        else:
            os.replace(temporary, target)
        if durable:
            _sync(target.parent)
    finally:
        delete(temporary)


def delete(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
