"""One's own images in Parquet, in the layout of the Hugging Face hub."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uvb.data.readers._decode import Encoded, decode
from uvb.data.readers._parts import Parts
from uvb.errors import UserError

_IMAGE_COLUMNS = ("image", "img")
_TEST_NAMES = ("test", "validation", "valid")


def read_parquet(path: Path, label_column: str | None = None) -> Parts:
    """Images of a Parquet file, or of a folder of shards.

    Column ``image`` or ``img`` holds each image as encoded bytes, ``struct<bytes, path>`` or plain binary; labels
    (integers or strings) are column `label_column`, by default ``label`` if there is one. In a folder the shards
    ``train*.parquet`` train and ``test*.parquet``, or else ``validation*`` or ``valid*``, test; other shards are then
    left out. Where no name begins so, all shards are one set, without a split. Shards are read in the order of names.

    Raises:
        UserError: no shards, a truncated file, a missing column, an image without bytes, or images that do not fit.
    """
    train_files, test_files = _shards(path) if path.is_dir() else ([path], [])
    train, train_labels = _read(train_files, label_column)
    test, test_labels = _read(test_files, label_column) if test_files else ([], None)
    if not train or (test_files and not test):
        raise UserError(f"{path}: the {'test' if train else 'training'} set is empty; at least one image is needed")
    images = decode(train + test)  # together, so that one image that differs is named wherever it is
    return Parts(images[: len(train)], images[len(train) :] if test else None, train_labels, test_labels)


def _shards(folder: Path) -> tuple[list[Path], list[Path]]:
    files = sorted(folder.glob("*.parquet"))
    train = [file for file in files if file.name.startswith("train")]
    for name in _TEST_NAMES:
        if test := [file for file in files if file.name.startswith(name)]:
            break
    if test and not train:
        raise UserError(f"{folder}: it has {test[0].name} but no train*.parquet; add the training shards")
    return train or files, test


def _read(files: list[Path], label_column: str | None) -> tuple[list[Encoded], NDArray[Any] | None]:
    images: list[Encoded] = []
    labels: list[NDArray[Any]] = []
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                names = parquet.schema_arrow.names
                image_column = next((name for name in _IMAGE_COLUMNS if name in names), None)
                if image_column is None:
                    raise UserError(f"{file}: no column 'image' or 'img'; it has {', '.join(names)}")
                if label_column is not None and label_column not in names:
                    raise UserError(f"{file}: no label column {label_column!r}; it has {', '.join(names)}")
                label = label_column or ("label" if "label" in names else None)
                table = parquet.read(columns=[image_column, *([label] if label else [])])
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file}: not a Parquet file, or damaged ({' '.join(str(error).split())})") from error
        images += _encoded(table[image_column], file)
        if label:
            labels.append(_labels(table[label], file, label))
    if (labels and len({part.dtype.kind for part in labels}) > 1) or 0 < len(labels) < len(files):
        raise UserError(f"{files[0].parent}: its shards do not have the same label column; give all the same, or none")
    return images, np.concatenate(labels) if labels else None


def _encoded(column: pa.ChunkedArray, file: Path) -> list[Encoded]:
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        contents = pc.struct_field(column, "bytes").to_pylist()
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        contents = column.to_pylist()
    else:
        raise UserError(f"{file}: its images are {kind}; struct<bytes, path> or binary, encoded as PNG or JPEG, is needed")
    if None in contents:
        raise UserError(f"{file}, row {contents.index(None)} has no image bytes; each image must lie in the Parquet itself")
    return [Encoded(f"{file}, row {row}", content) for row, content in enumerate(contents)]


def _labels(column: pa.ChunkedArray, file: Path, name: str) -> NDArray[Any]:
    kind = column.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if column.null_count:
        raise UserError(f"{file}: label column {name!r} has {column.null_count} empty rows; each image needs a label")
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.to_pylist(), np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.asarray(column.to_pylist(), np.str_)
    raise UserError(f"{file}: label column {name!r} is {kind}; integers or strings are needed")
