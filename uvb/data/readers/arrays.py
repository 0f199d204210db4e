"""Read the user's images from NumPy files, `.npz` and `.npy`, in blocks. Nothing is unpickled."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from uvb.data.readers.decode import Decoding, Target, to_levels
from uvb.data.readers.names import split_of
from uvb.data.readers.source import Piece, Source, Split, naming_damage
from uvb.errors import UserError
from uvb.regular import regular

SUFFIXES = (".npz", ".npy")
MAX_WHOLE = 1 << 30  # an array that cannot be read in blocks may have at most this many bytes
BOMB_BYTES, BOMB_RATIO = 1 << 28, 200  # an array above this size is refused if its compression ratio is above 200
BLOCK_BYTES = 1 << 24  # an array is read in blocks of about this many bytes
_DAMAGE = (
    OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, SyntaxError, zipfile.BadZipFile, zlib.error,
    RuntimeError,  # zipfile raises this for encrypted members, and a subclass for unknown kinds of compression
)  # fmt: skip


class Header(NamedTuple):
    """The header of an array, which is read before the values. The values begin at byte `start`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ArrayPiece(Piece):
    """All images of one array, (N, H, W), (N, C, H, W) or (N, H, W, C)."""

    path: Path
    name: str
    header: Header

    def where(self, row: int) -> str:
        return f"{self.path}, array {self.name!r}"

    def blocks(self, decoding: Decoding, target: Target | None) -> Iterator[tuple[NDArray[np.uint8], int]]:
        if decoding.resize or decoding.center_crop:
            raise UserError(f"{self.path}: --resize and --center-crop are only for pictures; resize the array before saving it")
        for values in _read_blocks(self.path, self.name, self.header, first_only=target is None):
            if values.dtype != np.uint8:
                values = to_levels(values, self.where(0), ", or give uint8 from 0 to 255")
            block = _channels_first(values)
            if target and block.shape[1:] != target.shape:
                raise UserError(
                    f"{self.where(0)} has images of shape {block.shape[1:]}, but {target.where} has {target.shape} (C, H, W); "
                    "all images must have one size, so resize them before saving"
                )
            yield block, 0


def read_arrays(path: Path) -> Source:
    """Find the images of an ``.npz`` or ``.npy``.

    In an ``.npz`` the names of the arrays say what they are:

    - Training images: ``train``, ``x_train`` or ``train_images``. Their labels: ``y_train`` or ``train_labels``.
    - Validation and test images: the same names with ``val`` or ``test``.
    - Images that are not divided into splits: ``images``. Their labels: ``labels`` or ``y``.

    Images are uint8, or floats in [0, 1], which are rounded to 255 levels. Other arrays are ignored.

    Raises:
        UserError: the file is damaged, unpacks to a suspicious size, or has no images, or its images are empty or have
            another type or shape.
    """
    headers = _headers(path)
    if _is_npy(path):
        return Source("a NumPy array", [Split("all", path.name, (_piece(path, "", headers[""]),))])
    images, labels = _roles(headers)
    if not images:
        raise UserError(
            f"{path}: it has the arrays {', '.join(headers) or '(none)'}; "
            "train and test, x_train and x_test, train_images and test_images, or images are needed"
        )
    source = Source("an .npz of arrays", [])
    for split, name in images.items():
        piece = _piece(path, name, headers[name])
        found = _labels(path, labels[split], headers[labels[split]], piece.count, source) if split in labels else None
        source.splits.append(Split(split, f"array {name}", (piece,), found))
    return source


def is_array(path: Path) -> bool:
    """Whether the name ends in ``.npz`` or ``.npy``, in capitals or not."""
    return path.suffix.lower() in SUFFIXES


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def first_array(path: Path) -> NDArray[Any]:
    """Read the first array of an ``.npy`` or ``.npz``. Raises `UserError` if there is none, or it is damaged or too large."""
    for name, header in _headers(path).items():
        return _whole(path, name, header)
    raise UserError(f"{path}: it holds no array")


def _channels_first(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W), (N, C, H, W) or (N, H, W, C) -> (N, C, H, W).

    The last of four axes is taken for C if its size is 1, 3 or 4, and the size of the second axis is none of these.
    """
    if array.ndim == 3:
        return array[:, None]
    if array.shape[-1] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return array


def _headers(path: Path) -> dict[str, Header]:
    """The headers of all arrays, by name. The array of an ``.npy`` has the name ""."""
    with _naming_damage(path):
        if _is_npy(regular(path)):
            with path.open("rb") as file:
                return {"": _header(file, path.stat().st_size, f"{path}")}
        found = {}
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.filename.endswith(".npy"):
                    continue
                name = entry.filename.removesuffix(".npy")
                if entry.file_size > BOMB_BYTES and entry.file_size > BOMB_RATIO * max(1, entry.compress_size):
                    raise UserError(
                        f"{path}, array {name!r} unpacks from {entry.compress_size / 1e6:.1f} MB to "
                        f"{entry.file_size / 1e9:.1f} GB, too much for images; if this is intended, save it with numpy.savez"
                    )
                with archive.open(entry) as file:
                    found[name] = _header(file, entry.file_size, f"{path}, array {name!r}")
        return found


def _header(file: IO[bytes], size: int, where: str) -> Header:
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    header = Header(shape, dtype, fortran, file.tell())
    if not dtype.hasobject and header.nbytes > size - header.start:
        raise UserError(
            f"{where} claims {header.nbytes:,} bytes (shape {shape}), but has {size - header.start:,}: it is damaged; "
            "write it again"
        )
    return header


def _roles(names: dict[str, Header]) -> tuple[dict[str, str], dict[str, str]]:
    """The names of the arrays of images, by split, and the names of the arrays of labels, by split."""
    images: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name in names:
        words = name.lower().split("_")
        split = next((found for word in words if (found := split_of(word))), "all")
        kinds = {word for word in words if not split_of(word)}
        if kinds == {"images"} or (kinds <= {"x", "images", "image"} and split != "all"):  # e.g. images, train, x_train
            images.setdefault(split, name)
        elif kinds <= {"y", "labels", "label"}:
            labels.setdefault(split, name)
    if len(images) > 1:
        images.pop("all", None)
    return images, labels


def _piece(path: Path, name: str, header: Header) -> ArrayPiece:
    where = f"{path}, array {name!r}" if name else f"{path}"
    if header.dtype.hasobject:
        raise UserError(f"{where} holds Python objects; uint8 from 0 to 255, or floats in [0, 1], are needed")
    if len(header.shape) not in (3, 4):
        raise UserError(f"{where} has shape {header.shape}; (N, H, W), (N, C, H, W) or (N, H, W, C) is needed")
    if 0 in header.shape:
        raise UserError(f"{where} is empty (shape {header.shape}); at least one image is needed")
    if header.dtype != np.uint8 and header.dtype.kind != "f":
        raise UserError(f"{where} is {header.dtype}; uint8 from 0 to 255, or floats in [0, 1], are needed")
    return ArrayPiece(header.shape[0], path, name, header)


def _labels(path: Path, name: str, header: Header, count: int, source: Source) -> NDArray[Any] | None:
    """The labels (N,). If images have several labels each, warn and return None."""
    single = header.shape in ((count,), (count, 1))
    if not single and header.shape[:1] == (count,) and not header.dtype.hasobject:
        source.warnings.append(f"array {name!r} has {math.prod(header.shape[1:])} labels per image; they are left out")
        return None
    if not single or header.dtype.kind not in "iubU":
        raise UserError(
            f"{path}, array {name!r} is {header.dtype} of shape {header.shape}; integers or strings of shape ({count},), one "
            "for each image, are needed"
        )
    return _whole(path, name, header).reshape(count)


def _whole(path: Path, name: str, header: Header) -> NDArray[Any]:
    if header.dtype.hasobject:
        raise UserError(f"{path}: an array of Python objects, which this project never unpickles; give an array of numbers")
    if header.nbytes > MAX_WHOLE:
        raise UserError(f"{path}: array {name!r} has {header.nbytes:,} bytes; at most {MAX_WHOLE:,} can be read at once")
    with _naming_damage(path), _opened(path, name) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        file.read(1)  # reading at the end makes `zipfile` compare the checksum
        return array


def _read_blocks(path: Path, name: str, header: Header, first_only: bool) -> Iterator[NDArray[Any]]:
    """Yield the array in blocks along its first axis. With `first_only` yield only the first image."""
    if header.fortran:
        array = _whole(path, name, header)
        yield array[:1] if first_only else array
        return
    row_bytes = header.nbytes // header.shape[0]
    step = 1 if first_only else max(1, BLOCK_BYTES // row_bytes)
    with _naming_damage(path), _opened(path, name) as file:
        file.read(header.start)
        for start in range(0, 1 if first_only else header.shape[0], step):
            rows = min(step, header.shape[0] - start)
            content = file.read(rows * row_bytes)
            if len(content) < rows * row_bytes:
                raise EOFError("the file ends too early")
            yield np.frombuffer(content, header.dtype).reshape(rows, *header.shape[1:])
        if not first_only:
            file.read(1)  # reading at the end makes `zipfile` compare the checksum


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    if _is_npy(path):
        with path.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            yield member


def _naming_damage(path: Path) -> AbstractContextManager[None]:
    advice = "write it with numpy.savez_compressed, or numpy.save"
    return naming_damage(lambda why: f"{path}: not an {path.suffix} of plain arrays, or damaged ({why}); {advice}", *_DAMAGE)
