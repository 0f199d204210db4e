"""Read the user's images from a folder of pictures.

This project walks the folder itself. Hugging Face `datasets` would drop linked folders and broken links silently. It would
also take a class called "train" for the training set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uvb.data.readers.decode import SUFFIXES
from uvb.data.readers.listing import Found, Listing, suffixes
from uvb.data.readers.names import split_of
from uvb.data.readers.source import PIECE, EncodedPiece, Source, Split
from uvb.data.report import Skipped
from uvb.errors import UserError

PICTURES_NOT_READ = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".eps", ".ps", ".psd", ".raw", ".dng", ".cr2", ".nef", ".exr", ".ico",
     ".tga")
)  # fmt: skip


@dataclass(frozen=True)
class FilePiece(EncodedPiece):
    """Picture files, by their paths relative to a folder."""

    root: str
    names: tuple[str, ...]

    def contents(self) -> Iterator[bytes | Path]:
        for row, name in enumerate(self.names):
            try:
                with open(f"{self.root}/{name}", "rb", buffering=0) as file:  # with a Path this loop is 10 % slower
                    yield file.read()
            except OSError as error:
                raise UserError(
                    f"cannot read {self.where(row)}: {error.strerror}; make it readable, or move it away"
                ) from error

    def where(self, row: int) -> str:
        return f"{self.root}/{self.names[row]}"


def read_folder(listing: Listing, wanted: frozenset[str] = frozenset()) -> Source:
    """Find the splits and the classes of a folder of pictures.

    Sub-folders called ``train``, ``test``, ``valid`` and the like are splits. Other sub-folders are classes: inside a split,
    the top folder of a picture's path names its class. Pictures are in the order of their paths.

    Args:
        wanted: names of sub-folders that the user declares to be splits.

    Raises:
        UserError: there are no pictures; or two folders mean the same split; or a split has pictures both inside and outside of
            sub-folders.
    """
    pictures, other = list[str](), list[Found]()
    for file in listing.files:
        if file.suffix in SUFFIXES:
            pictures.append(file.path)
        else:
            other.append(file)
    if not pictures:
        broken = f", broken links: {len(listing.broken)}" if listing.broken else ""
        raise UserError(
            f"{listing.root}: no images (other files: {len(listing.files)}{broken}); give a folder of pictures (PNG, JPEG) "
            "or of Parquet shards"
        )
    source = Source("a folder of pictures", [], skipped=listing.skipped())
    _note_unread(listing, other, source)
    prefix = _wrapper(pictures)
    for name, below in _splits([name.removeprefix(prefix) for name in pictures], wanted, source).items():
        folder = prefix + below
        inside = [picture for picture in pictures if picture.startswith(folder)]
        parts = (inside[at : at + PIECE] for at in range(0, len(inside), PIECE))
        pieces = tuple(FilePiece(len(part), str(listing.root), tuple(part)) for part in parts)
        source.splits.append(Split(name, folder or "all pictures", pieces, _classes(inside, folder, listing.root)))
    return source


def _wrapper(pictures: list[str]) -> str:
    """The path of the outer folders that hold nothing but one folder, e.g. ``faces/images/`` around the classes."""
    folders = [folder.split("/") if folder else [] for folder in {name.rpartition("/")[0] for name in pictures}]
    depth = 0
    # At this depth all pictures lie in the same folder, and each lies in a further folder inside it.
    while all(len(parts) > depth + 1 for parts in folders) and len({parts[depth] for parts in folders}) == 1:
        if split_of(folders[0][depth]):
            break
        depth += 1
    return "".join(f"{part}/" for part in folders[0][:depth])


def _splits(names: list[str], wanted: frozenset[str], source: Source) -> dict[str, str]:
    """The folder of each split, by its name. The folder "" means all pictures.

    Raises:
        UserError: two folders mean the same split, such as ``val`` and ``valid``.
    """
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    known = {top: split for top in sorted(tops - wanted) if (split := split_of(top))}
    if tops & wanted:
        chosen = {top: f"{top}/" for top in sorted(tops & wanted)} | {split: f"{top}/" for top, split in known.items()}
    elif len(set(known.values())) < len(known):
        raise UserError(f"the folders {', '.join(known)} mean the same split; choose with --split train=... test=...")
    else:
        chosen = {split: f"{top}/" for top, split in known.items()} if _are_splits(names, tops, known) else {}
    if not chosen:
        return {"all": ""}
    outside = [name for name in names if not name.startswith(tuple(chosen.values()))]
    if outside:
        source.skipped.append(Skipped("pictures outside the folders of the splits", len(outside), outside[0]))
        source.warnings.append(
            f"pictures left out because they lie outside the folders {', '.join(sorted(chosen.values()))}: {len(outside)}"
        )
    return chosen


def _are_splits(names: list[str], tops: set[str], known: dict[str, str]) -> bool:
    """Whether folders that are named like splits are splits. They may be classes, as in car, plane and train."""
    if known and known.keys() == tops:
        return True
    if "train" not in known.values():
        return False
    # A lone "train" among other folders is a split if it contains folders of classes, and a class if it contains pictures.
    return len(known) > 1 or all(name.count("/") > 1 for name in names if split_of(name.split("/", 1)[0]) == "train")


def _classes(names: list[str], folder: str, root: Path) -> NDArray[np.str_] | None:
    """The class of each picture in `folder`, by the sub-folder that it lies in. None if there are no sub-folders."""
    inside = [name.removeprefix(folder) for name in names]
    stray = [name for name in inside if "/" not in name]
    if len(stray) == len(inside):
        return None
    if stray:
        raise UserError(
            f"{root / folder / stray[0]} lies beside sub-folders of images; "
            "put either all images into sub-folders, which name their classes, or none"
        )
    return np.asarray([name.split("/", 1)[0] for name in inside], np.str_)


def _note_unread(listing: Listing, other: list[Found], source: Source) -> None:
    """Record the files that are left out, and warn about those that seem to be pictures."""
    lost = [file for file in other if file.suffix in PICTURES_NOT_READ]
    rest = [file for file in other if file.suffix not in PICTURES_NOT_READ]
    for why, group in (("pictures of other formats", lost), ("files that are not pictures", rest)):
        if group:
            source.skipped.append(Skipped(f"{why} ({suffixes(group)})", len(group), group[0].path))
    if lost:
        source.warnings.append(
            f"pictures left out because they cannot be read ({suffixes(lost)}): {len(lost)}; convert them to PNG"
        )
    if listing.broken:
        source.warnings.append(f"broken links left out: {len(listing.broken)}, such as {listing.broken[0]}")
