"""Read the user's images from Parquet or Arrow files, in the layouts of the Hugging Face hub.

Hugging Face `datasets` decides which file belongs to which split. Its answer is compared with the list of files, so that no
shard is left out without a warning.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uvb.data.readers.hub import import_datasets, offline
from uvb.data.readers.listing import Listing
from uvb.data.readers.names import split_in
from uvb.data.readers.source import BLOCK, PIECE, EncodedPiece, Piece, Source, Split, naming_damage
from uvb.data.report import Skipped
from uvb.errors import UserError
from uvb.words import counted

IMAGE_COLUMNS = ("image", "img", "pixel_values")
LABEL_COLUMNS = ("label", "labels")
SUFFIXES = (".parquet", ".arrow")
_SHARD = re.compile(r"^(?P<stem>.*?)-?(?P<number>\d{3,})-of-(?P<total>\d{3,})")
_MOST_PIECES = 8  # a row group has at most this many, because each piece reads the group from its beginning


class Columns(NamedTuple):
    """The columns that the user chose. None: the reader looks for the usual names."""

    image: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class ParquetPiece(EncodedPiece):
    """Rows `start` to `start + count` of one row group of a file. The first row has the number `first_row` in the file."""

    file: str
    column: str
    group: int
    start: int
    first_row: int

    def where(self, row: int) -> str:
        return f"{self.file}, row {self.first_row + row}"

    def contents(self) -> Iterator[bytes | Path]:
        begin, end = 0, self.start + self.count  # positions in the group: the batch's first row, and the row after this piece
        with _naming_damage(self.file), pq.ParquetFile(self.file, pre_buffer=False, buffer_size=1 << 20) as parquet:
            batches = parquet.iter_batches(BLOCK, row_groups=[self.group], columns=[self.column], use_threads=False)
            for batch in batches:
                first = max(begin, self.start)
                part = batch.column(0)[first - begin : end - begin]
                yield from _encoded(part, self, first - self.start)
                begin += len(batch)
                if begin >= end:
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
    """Find the images in a Parquet or Arrow file, in a folder of shards, or in a folder written by ``save_to_disk``.

    Raises:
        UserError: a shard is missing or damaged, there is no column of images, or `datasets` cannot read the folder.
    """
    root = listing.root
    names = {file.path for file in listing.files}
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= names:
        datasets = import_datasets()
        with naming_damage(lambda why: f"{root}: not written by save_to_disk, or damaged ({why}); save it again", Exception):
            loaded = datasets.load_from_disk(str(root))
        return from_datasets(
            loaded if isinstance(loaded, dict) else {"all": loaded}, columns, "Arrow, by save_to_disk", str(root)
        )
    tables = [str(root / file.path) for file in listing.files if _is_table(file.path or root.name)]  # "" if `root` is a file
    _require_all_shards(tables, root)
    splits, class_names = _resolved(root, columns, tables) if root.is_dir() else ({"all": tables}, ())
    source = Source("Parquet" if all(table.lower().endswith(".parquet") for table in tables) else "Arrow", [], class_names)
    source.skipped = listing.skipped()
    _note_unread(source, listing, tables, splits)
    source.splits = [_split(split, files, columns, source) for split, files in splits.items()]
    return source


def from_datasets(splits: Mapping[Any, Any], columns: Columns, kind: str, name: str) -> Source:
    """Make a source from one `datasets.Dataset` for each split."""
    source = Source(kind, [])
    for split, dataset in splits.items():
        pieces, labels = _from_dataset(dataset, f"{name}, {split}", columns, source)
        source.splits.append(Split(str(split), f"split {split}", tuple(pieces), labels))
    return source


def _from_dataset(dataset: Any, where: str, columns: Columns, source: Source) -> tuple[list[Piece], NDArray[Any] | None]:
    schema = dataset.data.table.schema
    image, label = _columns(schema, columns, where)
    starts = range(0, len(dataset), PIECE)
    pieces: list[Piece] = [DatasetPiece(min(PIECE, len(dataset) - at), dataset, image, at, where) for at in starts]
    column = dataset.select_columns([label]).with_format("arrow")[:][label] if label else None
    return pieces, _labels(column, label, schema, where, columns, source)


def _from_parquet(file: str, columns: Columns, source: Source) -> tuple[list[Piece], NDArray[Any] | None]:
    with _naming_damage(file), pq.ParquetFile(file) as parquet:
        schema, meta = parquet.schema_arrow, parquet.metadata
        image, label = _columns(schema, columns, file)
        column = parquet.read(columns=[label])[label] if label else None
        counts = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
    pieces: list[Piece] = []
    for group, count in enumerate(counts):
        size, before = max(PIECE, -(-count // _MOST_PIECES)), sum(counts[:group])
        pieces += [
            ParquetPiece(min(size, count - start), file, image, group, start, before + start) for start in range(0, count, size)
        ]
    return pieces, _labels(column, label, schema, file, columns, source)


def _from_arrow(file: str, columns: Columns, source: Source) -> tuple[list[Piece], NDArray[Any] | None]:
    datasets = import_datasets()
    with naming_damage(lambda why: f"{file}: not an Arrow file of a data set, or damaged ({why}); write it again", Exception):
        dataset = datasets.Dataset.from_file(file)
    return _from_dataset(dataset, file, columns, source)


def _split(name: str, files: list[str], columns: Columns, source: Source) -> Split:
    pieces: list[Piece] = []
    labels: list[NDArray[Any] | None] = []
    for file in files:
        read = _from_arrow if file.lower().endswith(".arrow") else _from_parquet
        made, found = read(file, columns, source)
        pieces += made
        labels.append(found)
    if len({None if part is None else part.dtype.kind for part in labels}) > 1:
        raise UserError(
            f"{Path(files[0]).parent}: the shards have different label columns; give all shards the same column, or none"
        )
    known = [part for part in labels if part is not None]
    origin = Path(files[0]).name if len(files) == 1 else f"{len(files)} files, {Path(files[0]).name} to {Path(files[-1]).name}"
    return Split(name, origin, tuple(pieces), np.concatenate(known) if known else None)


def _columns(schema: pa.Schema, columns: Columns, where: str) -> tuple[str, str | None]:
    """The names of the column of images and of the column of labels."""
    names = schema.names
    for asked, what in ((columns.image, "image"), (columns.label, "label")):
        if asked is not None and asked not in names:
            raise UserError(f"{where}: no {what} column {asked!r}; it has {', '.join(names)}")
    image = columns.image or next((name for name in IMAGE_COLUMNS if name in names), None)
    if image is None:
        raise UserError(
            f"{where}: no column 'image', 'img' or 'pixel_values'; it has {', '.join(names)}; choose one with --image-column"
        )
    kind = schema.field(image).type
    encoded = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    in_structs = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (encoded or in_structs):
        raise UserError(f"{where}: images are {kind}; pictures in a column of type binary or struct<bytes, path> are needed")
    return image, columns.label or next((name for name in LABEL_COLUMNS if name in names), None)


def _labels(
    column: pa.ChunkedArray | None, label: str | None, schema: pa.Schema, where: str, columns: Columns, source: Source
) -> NDArray[Any] | None:
    """The labels, integers or strings (N,). If the column does not hold a class for each image, warn and return None.

    Warnings and the names of the classes are added to `source`.

    Raises:
        UserError: the user chose this column, but it does not hold a class for each image.
    """
    if column is None or label is None:
        return None
    source.class_names = source.class_names or _class_names(schema, label)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if column.null_count:
        reason = f"has {counted(column.null_count, 'empty row')}"
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.int64)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.asarray(column.to_pylist(), np.str_)
    else:
        reason = f"is {kind}; integers or strings are needed"
    if columns.label is not None:
        raise UserError(f"{where}: label column {label!r} {reason}")
    source.warnings.append(f"{where}: label column {label!r} {reason}: labels are left out")
    return None


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The names of the classes, from the hub's metadata in a file's schema. Empty if there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label].get("names") or ())
    except (KeyError, ValueError, TypeError, AttributeError):
        return ()


def _is_table(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _require_all_shards(files: Sequence[str], root: Path) -> None:
    """Raise `UserError` if shards are missing. A name such as train-00000-of-00002 says how many there must be."""
    found: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.match(str(Path(file).with_suffix(""))):
            found.setdefault((match["stem"], int(match["total"])), set()).add(int(match["number"]))
    for (stem, total), numbers in found.items():
        if missing := sorted(set(range(total)) - numbers):
            names = ", ".join(f"{Path(stem).name}-{number:05d}-of-{total:05d}" for number in missing[:3])
            raise UserError(
                f"{root}: {len(missing)} of {total} shards are missing ({names}{', ...' if len(missing) > 3 else ''}); "
                "fetch them, or rename the files if none is missing"
            )


def _resolved(folder: Path, columns: Columns, tables: list[str]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The files of each split, by its name, and the names of the classes. `datasets` finds both by file names and README."""
    datasets = import_datasets()
    with (
        tempfile.TemporaryDirectory(prefix="uvb-datasets-") as scratch,
        offline(datasets),
        naming_damage(lambda why: f"{folder}: {why}; give the folder of one data set, or its files", Exception),
    ):
        builder = datasets.load_dataset_builder(str(folder), cache_dir=scratch)
    files = {str(split): [str(file) for file in found] for split, found in builder.config.data_files.items()}
    if all(_is_table(file) for found in files.values() for file in found):
        features = builder.info.features or {}
        label = columns.label or next((name for name in LABEL_COLUMNS if name in features), None)
        return files, tuple(getattr(features.get(label), "names", None) or ())
    by_split: dict[str, list[str]] = {}  # `datasets` chose other files, e.g. because there are more pictures than shards
    for table in tables:
        by_split.setdefault(split_in(Path(table).stem) or "train", []).append(table)
    return by_split, ()


def _note_unread(source: Source, listing: Listing, tables: list[str], splits: dict[str, list[str]]) -> None:
    read = {str(Path(file).resolve()) for files in splits.values() for file in files}
    if left := [table for table in tables if str(Path(table).resolve()) not in read]:
        source.skipped.append(Skipped("Parquet or Arrow files of no split", len(left), left[0]))
        source.warnings.append(
            f"Parquet or Arrow files left out because they belong to no split: {len(left)}, such as {left[0]}"
        )
    others = [file.path for file in listing.files if file.path and not _is_table(file.path)]
    if others:
        source.skipped.append(Skipped("files beside the shards", len(others), others[0]))


def _encoded(column: pa.Array, piece: EncodedPiece, at: int) -> Iterator[bytes | Path]:
    """Yield the encoded pictures of a column. Its first row is row `at` of the piece."""
    structs = pa.types.is_struct(column.type)
    contents = (pc.struct_field(column, "bytes") if structs else column).to_pylist()
    for row, content in enumerate(contents):
        if content is not None:
            yield content
            continue
        path = None
        if structs and isinstance(piece, DatasetPiece):  # `datasets` may keep a picture as a file in its cache
            path = (column[row].as_py() or {}).get("path")
        if not path:
            raise UserError(f"{piece.where(at + row)} has no image bytes; each image must be stored in the file itself")
        yield Path(path)


def _naming_damage(file: str) -> Any:
    return naming_damage(
        lambda why: f"{file}: not a Parquet file, or damaged ({why}); write or fetch it again", pa.ArrowException, OSError
    )
