"""Write files and folders atomically: a file or folder gets its name only when it is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

TEMPORARY = ".tmp-"  # the names of incomplete files and folders begin with this


@contextmanager
def replacing(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a new path beside `target`. It is renamed to `target` when the block ends, or deleted if the block raises.

    The block makes a file or a folder at that path. An earlier `target` stays in place until the block ends.

    Args:
        durable: wait until the bytes are on the disk. Then a power cut leaves the old version or the new one. One exception: a
            folder replaces another by two renames, and a power cut between them leaves neither.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{uuid4().hex}-{target.name[-40:]}")  # a name has at most 255 bytes
    try:
        yield temporary
        if durable:
            for path in [*temporary.rglob("*"), temporary]:
                _sync(path)
        if temporary.is_dir() and target.exists():  # a rename cannot replace a folder
            old = target.with_name(f"{TEMPORARY}{uuid4().hex}-{target.name[-40:]}")
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
