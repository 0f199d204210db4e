"""One's own images in Parquet or Arrow, in the layouts of the Hugging Face hub.

Hugging Face `datasets` says which file is of which split; what it says is held against what lies on the disk.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uvb.data.readers.library import import_datasets, offline
from uvb.data.readers.listing import Listing
from uvb.data.readers.names import split_in
from uvb.data.readers.source import BLOCK, PIECE, EncodedPiece, Piece, Skipped, Source, Split
from uvb.errors import UserError

IMAGE_COLUMNS = ("image", "img", "pixel_values")
LABEL_COLUMNS = ("label", "labels")
SUFFIXES = (".parquet", ".arrow")
_SHARD = re.compile(r"^(?P<stem>.*?)-?(?P<number>\d{3,})-of-(?P<total>\d{3,})")
_MOST_PIECES = 8  # of a row group: each reads it from its beginning


class Columns(NamedTuple):
    """The columns that the user names; None where the usual names will do."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class ParquetPiece(EncodedPiece):
    """Rows `start` to `start + count` of one row group; `first_row` is the row of the file that it begins with."""

    file: str
    column: str
    group: int
    start: int
    first_row: int

    def where(self, row: int) -> str:
        return f"{self.file}, row {self.first_row + row}"

    def contents(self) -> Iterator[bytes | Path]:
        row, end = 0, self.start + self.count
        with _naming_damage(self.file), pq.ParquetFile(self.file, pre_buffer=False, buffer_size=1 << 20) as parquet:
            batches = parquet.iter_batches(BLOCK, row_groups=[self.group], columns=[self.column], use_threads=False)
            for batch in batches:
                first = max(row, self.start)
                part = batch.column(0)[first - row : end - row]
                yield from _encoded(part, self, first - self.start)
                row += len(batch)
                if row >= end:
                    return


@dataclass(frozen=True)
class DatasetPiece(EncodedPiece):
    """Rows `start` to `start + count` of a memory-mapped `datasets.Dataset`."""

    dataset: Any
    column: str
    start: int
    name: str

    def where(self, row: int) -> str:
        return f"{self.name}, row {self.start + row}"

    def contents(self) -> Iterator[bytes | Path]:
        arrow = self.dataset.select_columns([self.column]).with_format("arrow")
        for at in range(0, self.count, BLOCK):
            table = arrow[self.start + at : self.start + min(at + BLOCK, self.count)]
            yield from _encoded(table[self.column].combine_chunks(), self, at)


def read_tables(listing: Listing, columns: Columns) -> Source:
    """Find the images of a Parquet or Arrow file, of a folder of shards, or of a folder written by ``save_to_disk``.

    Raises:
        UserError: a shard is missing or damaged, there is no column of images, or the library cannot read the folder.
    """
    root = listing.root
    names = {file.path for file in listing.files}
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= names:
        datasets = import_datasets()
        try:
            loaded = datasets.load_from_disk(str(root))
        except Exception as error:  # the library raises of many kinds for a damaged folder
            raise UserError(f"{root}: not a data set written by save_to_disk, or damaged ({_line(error)})") from error
        return from_datasets(
            loaded if isinstance(loaded, dict) else {"all": loaded}, columns, "Arrow, by save_to_disk", str(root)
        )
    tables = [str(root / file.path) if file.path else str(root) for file in listing.files if _is_table(file.path or root.name)]
    _require_all_shards(tables, root)
    splits, class_names = _resolved(root, columns) if root.is_dir() else ({"all": tables}, ())
    source = Source("Parquet" if all(t.endswith(".parquet") for t in tables) else "Arrow", [], class_names)
    source.skipped = listing.skipped()
    _note_unread(source, listing, tables, splits)
    for split, files in splits.items():
        source.splits.append(_split(split, files, columns, source, root))
    return source


def from_datasets(splits: dict[str, Any], columns: Columns, kind: str, name: str) -> Source:
    """The source of `datasets.Dataset`s by split."""
    source = Source(kind, [])
    for split, dataset in splits.items():
        schema = dataset.data.table.schema
        column, label = _columns(schema, columns, f"{name}, {split}")
        pieces = tuple(
            DatasetPiece(min(PIECE, len(dataset) - at), dataset, column, at, f"{name}, {split}")
            for at in range(0, len(dataset), PIECE)
        )
        labels = None
        if label:
            values = dataset.select_columns([label]).with_format("arrow")[:][label]
            labels = labels_of(values, f"{name}, {split}: label column {label!r}", columns.label is not None, source)
            source.class_names = source.class_names or _class_names(schema, label)
        source.splits.append(Split(str(split), f"split {split}", pieces, labels))
    return source


def labels_of(column: pa.ChunkedArray, what: str, asked: bool, source: Source) -> NDArray[Any] | None:
    """Integers or strings (N,); None, with a warning, where the column holds no class for each image.

    Raises:
        UserError: the user asked for this column, and it holds no classes.
    """
    kind = column.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    reason = ""
    if column.null_count:
        reason = f"has {column.null_count} empty rows"
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.asarray(column.to_pylist(), np.str_)
    reason = reason or f"is {kind}; integers or strings are needed"
    if asked:
        raise UserError(f"{what} {reason}")
    source.warnings.append(f"{what} {reason}: labels are left out")
    return None


def _is_table(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _require_all_shards(files: Sequence[str], root: Path) -> None:
    """Names such as train-00000-of-00002 say how many shards there are: refuse where some are missing."""
    found: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.match(str(Path(file).with_suffix(""))):
            found.setdefault((match["stem"], int(match["total"])), set()).add(int(match["number"]))
    for (stem, total), numbers in found.items():
        if missing := sorted(set(range(total)) - numbers):
            names = ", ".join(f"{Path(stem).name}-{number:05d}-of-{total:05d}" for number in missing[:3])
            raise UserError(
                f"{root}: {len(missing)} of {total} shards are missing ({names}{', ...' if len(missing) > 3 else ''}); "
                "fetch them, or rename the files that are there if they are all"
            )


def _resolved(folder: Path, columns: Columns) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Split -> its files, as `datasets` finds them by names and by the README's configurations; and classes named there."""
    datasets = import_datasets()
    with tempfile.TemporaryDirectory(prefix="uvb-datasets-") as scratch, offline(datasets):
        try:
            builder = datasets.load_dataset_builder(str(folder), cache_dir=scratch)
        except Exception as error:  # the library raises of many kinds
            raise UserError(f"{folder}: {_line(error)}; give the folder of one data set, or its files") from error
    files = {str(split): [str(file) for file in found] for split, found in builder.config.data_files.items()}
    label = columns.label or next((name for name in LABEL_COLUMNS if name in (builder.info.features or {})), None)
    names = tuple(getattr((builder.info.features or {}).get(label), "names", None) or ())
    if all(_is_table(file) for found in files.values() for file in found):
        return files, names
    # more pictures than shards, or other files: the tables are what was meant
    tables = sorted(
        str(path) for path in folder.rglob("*") if _is_table(path.name) and "/." not in str(path.relative_to(folder))
    )
    split: dict[str, list[str]] = {}
    for table in tables:
        split.setdefault(split_in(Path(table).stem) or "train", []).append(table)
    return split, ()


def _note_unread(source: Source, listing: Listing, tables: list[str], splits: dict[str, list[str]]) -> None:
    read = {str(Path(file).resolve()) for files in splits.values() for file in files}
    if left := [table for table in tables if str(Path(table).resolve()) not in read]:
        source.skipped.append(Skipped("Parquet or Arrow files of no split", len(left), left[0]))
        source.warnings.append(f"{len(left)} Parquet or Arrow files belong to no split and are left out, such as {left[0]}")
    others = [file for file in listing.files if file.path and not _is_table(file.path)]
    if others:
        source.skipped.append(Skipped("files beside the shards", len(others), others[0].path))


def _split(name: str, files: list[str], columns: Columns, source: Source, root: Path) -> Split:
    pieces: list[Piece] = []
    labels: list[NDArray[Any] | None] = []
    for file in files:
        if file.endswith(".arrow"):
            made, found = _from_arrow(file, columns, source)
        else:
            made, found = _from_parquet(file, columns, source)
        pieces += made
        labels.append(found)
    kinds = {None if part is None else part.dtype.kind for part in labels}
    if len(kinds) > 1:
        raise UserError(f"{Path(files[0]).parent}: its shards do not have the same label column; give all the same, or none")
    origin = Path(files[0]).name if len(files) == 1 else f"{len(files)} files, {Path(files[0]).name} to {Path(files[-1]).name}"
    return Split(
        name, origin, tuple(pieces), np.concatenate([part for part in labels if part is not None]) if kinds - {None} else None
    )


def _from_parquet(file: str, columns: Columns, source: Source) -> tuple[list[Piece], NDArray[Any] | None]:
    with _naming_damage(file), pq.ParquetFile(file) as parquet:
        schema, meta = parquet.schema_arrow, parquet.metadata
        image, label = _columns(schema, columns, file)
        column = parquet.read(columns=[label])[label] if label else None
        rows = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    pieces: list[Piece] = []
    before = 0
    for group, count in enumerate(rows):
        size = max(PIECE, -(-count // _MOST_PIECES))
        pieces += [
            ParquetPiece(min(size, count - start), file, image, group, start, before + start) for start in range(0, count, size)
        ]
        before += count
    if column is None or label is None:
        return pieces, None
    source.class_names = source.class_names or _class_names(schema, label)
    return pieces, labels_of(column, f"{file}: label column {label!r}", columns.label is not None, source)


def _from_arrow(file: str, columns: Columns, source: Source) -> tuple[list[Piece], NDArray[Any] | None]:
    datasets = import_datasets()
    try:
        dataset = datasets.Dataset.from_file(file)
    except Exception as error:  # the library raises of many kinds for a damaged file
        raise UserError(f"{file}: not an Arrow file of a data set, or damaged ({_line(error)})") from error
    part = from_datasets({"all": dataset}, columns, "Arrow", file)
    source.class_names = source.class_names or part.class_names
    source.warnings += part.warnings
    return list(part.splits[0].pieces), part.splits[0].labels


def _columns(schema: pa.Schema, columns: Columns, where: str) -> tuple[str, str | None]:
    """The columns of images and of labels."""
    names = schema.names
    for asked, what in ((columns.image, "image"), (columns.label, "label")):
        if asked is not None and asked not in names:
            raise UserError(f"{where}: no {what} column {asked!r}; it has {', '.join(names)}")
    image = columns.image or next((name for name in IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise UserError(
            f"{where}: no column 'image', 'img' or 'pixel_values'; it has {', '.join(names)}: choose one by --image-column"
        )
    kind = schema.field(image).type
    encoded = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not encoded and not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise UserError(f"{where}: its images are {kind}; struct<bytes, path> or binary, encoded as PNG or JPEG, is needed")
    return image, columns.label or next((name for name in LABEL_COLUMNS if name in names), None)


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """What the hub's metadata in a file's schema call the classes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label].get("names") or ())
    except (KeyError, ValueError, TypeError, AttributeError):
        return ()


def _encoded(column: pa.Array, piece: EncodedPiece, at: int) -> Iterator[bytes | Path]:
    """The encoded pictures of a column; `at` is the row of the piece that it begins with."""
    contents = (pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column).to_pylist()
    for row, content in enumerate(contents):
        if content is not None:
            yield content
            continue
        path = column[row].as_py() if pa.types.is_struct(column.type) else None
        if isinstance(piece, DatasetPiece) and path and path.get("path"):  # the library's cache may hold the files themselves
            yield Path(path["path"])
            continue
        raise UserError(f"{piece.where(at + row)} has no image bytes; each image must lie in the file itself")


class _naming_damage:
    """Turns Arrow's errors into one line that names the file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, pa.ArrowException | OSError):
            raise UserError(f"{self.file}: not a Parquet file, or damaged ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
