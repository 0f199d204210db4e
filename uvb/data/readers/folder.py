"""One's own images as pictures in a folder.

The folder is walked here and not by Hugging Face `datasets`, which drops linked folders and links to nothing silently, and
takes a class called "train" for the whole set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uvb.data.readers.decode import SUFFIXES
from uvb.data.readers.listing import Listing, suffixes
from uvb.data.readers.names import split_of
from uvb.data.readers.source import PIECE, EncodedPiece, Skipped, Source, Split
from uvb.errors import UserError

PICTURES_NOT_READ = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".eps", ".ps", ".psd", ".raw", ".dng", ".cr2", ".nef", ".exr", ".ico",
     ".tga")
)  # fmt: skip


@dataclass(frozen=True)
class FilePiece(EncodedPiece):
    """Picture files of one folder, by their paths relative to it."""

    root: str
    names: tuple[str, ...]

    def contents(self) -> Iterator[bytes | Path]:
        for row, name in enumerate(self.names):
            try:
                with open(f"{self.root}/{name}", "rb", buffering=0) as file:  # a Path for each would cost a tenth of the time
                    yield file.read()
            except OSError as error:
                raise UserError(
                    f"cannot read {self.where(row)}: {error.strerror}; make it readable, or move it away"
                ) from error

    def where(self, row: int) -> str:
        return f"{self.root}/{self.names[row]}"


def read_folder(listing: Listing, wanted: frozenset[str] = frozenset()) -> Source:
    """Find the pictures of a folder: its splits, and their classes.

    Sub-folders called ``train``, ``test``, ``valid`` and the like are splits; all others are classes. A picture's class is
    the first sub-folder of its split that it lies in. Pictures are taken in the order of their paths.

    Args:
        wanted: sub-folders that are splits because the user says so.

    Raises:
        UserError: there are no pictures, or some but not all lie in sub-folders.
    """
    pictures = [file.path for file in listing.files if file.suffix in SUFFIXES]
    if not pictures:
        broken = f", {len(listing.broken)} links to nothing" if listing.broken else ""
        raise UserError(
            f"{listing.root}: no images ({len(listing.files)} other files{broken}); give a folder of pictures, such "
            "as PNG or JPEG, or of Parquet shards"
        )
    source = Source("a folder of pictures", [], skipped=listing.skipped())
    _note_unread(listing, source)
    prefix = _wrapper(pictures)
    splits = _splits([name.removeprefix(prefix) for name in pictures], wanted, source)
    for name, below in splits.items():
        inside = [prefix + below + rest for rest in _below(pictures, prefix + below)]
        pieces = tuple(
            FilePiece(len(part), str(listing.root), tuple(part))
            for part in (inside[at : at + PIECE] for at in range(0, len(inside), PIECE))
        )
        source.splits.append(
            Split(name, prefix + below or "all pictures", pieces, _classes(inside, prefix + below, listing.root))
        )
    return source


def _below(names: list[str], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _wrapper(pictures: list[str]) -> str:
    """The folders that merely hold the data set: each the only one, with further folders of pictures in it."""
    prefix = ""
    while True:
        parts = {tuple(name.split("/")[:2]) for name in _below(pictures, prefix)}
        tops = {part[0] for part in parts}
        deeper = all(len(name.split("/")) > 2 for name in _below(pictures, prefix))
        if len(tops) != 1 or not deeper or split_of(next(iter(tops))):
            return prefix
        prefix += f"{tops.pop()}/"


def _splits(names: list[str], wanted: frozenset[str], source: Source) -> dict[str, str]:
    """Split -> its folder ("" for all). Several folders of one split, such as val and valid, are refused."""
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    if named := {top for top in tops if top in wanted}:
        chosen = {top: f"{top}/" for top in sorted(named)} | {
            split: f"{top}/" for top in sorted(tops - named) if (split := split_of(top))
        }
    else:
        known = {top: split for top in sorted(tops) if (split := split_of(top))}
        if len(set(known.values())) < len(known):
            raise UserError(f"the folders {', '.join(known)} mean the same split; choose by --split train=... test=...")
        chosen = {split: f"{top}/" for top, split in known.items()} if _are_splits(names, tops, set(known)) else {}
    if not chosen:
        return {"all": ""}
    outside = [name for name in names if not name.startswith(tuple(chosen.values()))]
    if outside:
        source.skipped.append(Skipped("pictures outside the folders of the splits", len(outside), outside[0]))
        source.warnings.append(
            f"{len(outside)} pictures lie outside the folders {', '.join(sorted(chosen.values()))}, and are left out"
        )
    return chosen


def _are_splits(names: list[str], tops: set[str], known: set[str]) -> bool:
    """Whether folders with names of splits are splits, or classes that are called so, such as car, plane and train."""
    if not known:
        return False
    kinds = {split_of(top) for top in known}
    if known == tops or ("train" in kinds and len(kinds) > 1):
        return True
    if "train" not in kinds:
        return False
    # a lone "train" among other folders: a split has classes in it, a class has pictures
    return all(name.count("/") > 1 for name in names if split_of(name.split("/", 1)[0]) == "train")


def _classes(names: list[str], prefix: str, root: Path) -> NDArray[np.str_] | None:
    inside = [name.removeprefix(prefix) for name in names]
    labels = [name.split("/", 1)[0] for name in inside if "/" in name]
    if not labels:
        return None
    if len(labels) < len(inside):
        stray = next(name for name in inside if "/" not in name)
        raise UserError(
            f"{root / prefix / stray} lies beside subfolders of images; put all images in subfolders (their labels), or none"
        )
    return np.asarray(labels, np.str_)


def _note_unread(listing: Listing, source: Source) -> None:
    """Say which files are left out; loudly where they were meant to be pictures."""
    other = [file for file in listing.files if file.suffix not in SUFFIXES]
    lost = [file for file in other if file.suffix in PICTURES_NOT_READ]
    rest = [file for file in other if file.suffix not in PICTURES_NOT_READ]
    for why, group in (("pictures of other formats", lost), ("files that are no pictures", rest)):
        if group:
            source.skipped.append(Skipped(f"{why} ({suffixes(group)})", len(group), group[0].path))
    if lost:
        source.warnings.append(f"{len(lost)} pictures ({suffixes(lost)}) cannot be read and are left out; convert them to PNG")
    if listing.broken:
        source.warnings.append(
            f"{len(listing.broken)} files are links to nothing and are left out, such as {listing.broken[0]}"
        )
