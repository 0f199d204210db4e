"""List the files in a folder, with sizes and times. The contents of the files are not read."""

import hashlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from uvb.data.report import Skipped
from uvb.errors import UserError
from uvb.regular import regular

TICK = 0.05  # seconds; two writes within this time may have the same time stamp


class Found(NamedTuple):
    """A file: its path relative to the listed folder, its size in bytes, and its times of modification and change in ns.

    If a file was listed instead of a folder, its path is "".
    """

    path: str
    size: int
    modified: int
    changed: int

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.path)[1].lower()


@dataclass
class Listing:
    """The files below `root`, sorted by path. Broken links and hidden names are not in `files`, and have lists of their own."""

    root: Path
    files: list[Found]
    broken: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def fingerprint(self, *options: object) -> str:
        """24 hex digits: a hash of the list and of `options`. It changes when a file is added, removed or written."""
        digest = hashlib.sha256(repr((str(self.root), *options)).encode())
        for file in self.files:
            digest.update(repr(tuple(file)).encode("utf-8", "surrogateescape"))
        digest.update(repr(self.broken).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:24]

    def skipped(self) -> list[Skipped]:
        """The broken links and the hidden names, which no reader reads."""
        groups = (("broken links", self.broken), ("hidden files and folders", self.hidden))
        return [Skipped(why, len(names), names[0]) for why, names in groups if names]


def list_files(path: Path) -> Listing:
    """List a file, or all files below a folder. Symbolic links are followed. Hidden names are left out.

    Raises:
        UserError: something cannot be read.
    """
    listing = Listing(path, [])
    try:
        if path.is_dir():
            _walk(path, "", listing, (os.path.realpath(path),))
            listing.files.sort()
        else:
            listing.files.append(_found("", os.stat(regular(path))))
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror}; make it readable, or move it away") from error
    newest = max((max(file.modified, file.changed) for file in listing.files), default=0) / 1e9
    if 0 <= time.time() - newest < TICK:
        time.sleep(TICK)  # wait, so that any later write gets another time stamp
    return listing


def suffixes(files: list[Found]) -> str:
    """The four most frequent suffixes of `files`, e.g. ".txt, .csv"."""
    counts = Counter(file.suffix or "no suffix" for file in files)
    return ", ".join(suffix for suffix, _ in counts.most_common(4)) + (", ..." if len(counts) > 4 else "")


def _walk(folder: Path, prefix: str, listing: Listing, parents: tuple[str, ...]) -> None:
    """Add the files below `folder` to `listing`. `parents` are the real paths of `folder` and of the folders above."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                listing.hidden.append(name)
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in parents:  # following a link to a folder above would never end
                    _walk(Path(entry.path), f"{name}/", listing, (*parents, real))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                listing.broken.append(name)
            elif entry.is_file():
                listing.files.append(_found(name, entry.stat()))


def _found(name: str, stat: os.stat_result) -> Found:
    return Found(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
