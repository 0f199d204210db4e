"""The only way pipelines touch a study's files: a local folder, or a URI such as ``s3://bucket/studies/digits``.

Whatever is written is whole or absent. On a local disk a file or folder gets its name by a rename after its bytes are
on disk; on an object store a file is one put, and a folder counts from the moment its manifest, put last, is there.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyarrow import fs as arrow
from safetensors import SafetensorError

from uvb.errors import UserError

MANIFEST = ".manifest.json"  # names beginning with a dot are the store's own and never listed
_TEMPORARY = ".tmp-"
_ARROW = {"s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs"}  # schemes that Arrow opens; fsspec the others
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Store:
    """Files below one root; every path argument is relative to it, with forward slashes.

    Args:
        root: a local path, or a URI that Arrow (file, s3, gs, abfs, hdfs) or fsspec (memory, ...) understands.

    Raises:
        UserError: the URI is of an unknown kind, or (while writing) the root is full or cannot be written.
        FileNotFoundError: a path that is read is absent.
    """

    def __init__(self, root: "str | os.PathLike[str] | Store"):
        text = root.uri if isinstance(root, Store) else os.fspath(root)
        self.uri: str
        self.local_path: Path | None = None
        if "://" not in text or text.startswith("file://"):
            # made absolute here, since Ray's workers run in another directory
            self.local_path = Path(os.path.abspath(os.path.expanduser(text.removeprefix("file://"))))
            self.uri = self._base = self._address = str(self.local_path)
            self._options = ""
            self.fs: arrow.FileSystem = arrow.LocalFileSystem()
        else:
            # such as ?endpoint_override=..., which belongs behind every path
            address, mark, options = text.partition("?") if text.split("://")[0] in _ARROW else (text, "", "")
            self._address, self._options = address.rstrip("/"), mark + options
            self.uri = self._address + self._options
            self.fs, self._base = _open_remote(self.uri)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.uri,)  # open file systems don't travel to workers; addresses do

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def join(self, *parts: str) -> str:
        """The full address of a path, for people and for workers: ``Store(store.join("models", spec_id))``."""
        return "/".join([self._address, *(part.strip("/") for part in parts if part)]) + self._options

    def _at(self, path: str) -> str:
        return f"{self._base}/{path.strip('/')}".rstrip("/")

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there. A folder by `upload` is there once it is complete (see `is_complete`)."""
        return self.fs.get_file_info(self._at(path)).type != arrow.FileType.NotFound

    def is_complete(self, prefix: str) -> bool:
        """Whether a folder made by `upload` or `folder` is whole."""
        return self.exists(prefix if self.local_path else f"{prefix}/{MANIFEST}")

    def read_bytes(self, path: str) -> bytes:
        with self.fs.open_input_stream(self._at(path), compression=None) as stream:
            return bytes(stream.read())

    def read_json(self, path: str) -> Any:
        return json.loads(self.read_bytes(path))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file durably; readers see the old bytes or the new ones, where the store's own puts are atomic (S3's are)."""
        with self._writing(path):
            if self.local_path:
                target = self.local_path / path
                with _renamed(target) as temporary, open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            else:
                with self.fs.open_output_stream(self._at(path), compression=None) as stream:
                    stream.write(data)

    def write_json(self, path: str, value: Any) -> None:
        self.write_bytes(path, json.dumps(value, indent=1).encode())

    def list(self, prefix: str = "") -> list[str]:
        """Names of what lies directly in a folder, sorted; [] where there is no such folder."""
        selector = arrow.FileSelector(self._at(prefix), allow_not_found=True)
        return sorted(i.base_name for i in self.fs.get_file_info(selector) if not i.base_name.startswith("."))

    def stamps(self, prefix: str = "") -> dict[str, tuple[int, int]]:
        """Path (relative to the root) -> (modification time in ns, size) of every file below; tells what changed."""
        selector = arrow.FileSelector(self._at(prefix), allow_not_found=True, recursive=True)
        paths = {i.path[len(self._base) :].strip("/"): i for i in self.fs.get_file_info(selector) if i.is_file}
        return {p: (i.mtime_ns or 0, i.size) for p, i in paths.items() if not any(n[0] == "." for n in p.split("/"))}

    def remove(self, prefix: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens where there is none."""
        kind = self.fs.get_file_info(self._at(prefix)).type
        with self._writing(prefix):
            if kind == arrow.FileType.File:
                self.fs.delete_file(self._at(prefix))
            elif kind == arrow.FileType.Directory:
                if not self.local_path and self.exists(f"{prefix}/{MANIFEST}"):
                    self.fs.delete_file(self._at(f"{prefix}/{MANIFEST}"))  # first, so that no half folder looks whole
                self.fs.delete_dir(self._at(prefix))

    @contextmanager
    def folder(self, prefix: str) -> Iterator[Path]:
        """Yield an empty local folder to fill; it becomes `prefix` when the block ends, and nothing if it raises.

        On a local disk it is filled in place, so large checkpoints are written once. An older `prefix` is replaced.
        """
        with self._writing(prefix):
            if self.local_path:
                with _renamed(self.local_path / prefix) as temporary:
                    temporary.mkdir()
                    yield temporary
                    for path in [*temporary.rglob("*"), temporary]:
                        _fsync(path)
            else:
                with tempfile.TemporaryDirectory(prefix="uvb-store-") as temporary:
                    yield Path(temporary)
                    self._put_folder(Path(temporary), prefix)

    def _put_folder(self, local: Path, prefix: str) -> None:
        self.remove(prefix)
        files = {p.relative_to(local).as_posix(): p for p in sorted(local.rglob("*")) if p.is_file()}
        for name, path in files.items():
            arrow.copy_files(str(path), self._at(f"{prefix}/{name}"), destination_filesystem=self.fs)
        self.write_json(f"{prefix}/{MANIFEST}", {name: path.stat().st_size for name, path in files.items()})

    def upload(self, local_dir: "str | os.PathLike[str]", prefix: str) -> None:
        """Copy a local folder here, whole or not at all; an older one is replaced."""
        with self.folder(prefix) as temporary:
            shutil.copytree(local_dir, temporary, dirs_exist_ok=True)

    def download(self, prefix: str, into: "str | os.PathLike[str] | None" = None) -> Path:
        """A local folder with what `upload` put there, to be read only: the folder itself where the store is local
        (unless `into` is given), else a fresh copy, which the caller may delete.

        Raises:
            FileNotFoundError: no such folder, or one whose upload was never finished.
        """
        if not self.is_complete(prefix):
            raise FileNotFoundError(f"no complete folder at {self.join(prefix)}")
        if self.local_path:
            here = self.local_path / prefix
            return here if into is None else Path(shutil.copytree(here, into, dirs_exist_ok=True))
        target = Path(into if into is not None else tempfile.mkdtemp(prefix="uvb-store-"))
        for name in self.read_json(f"{prefix}/{MANIFEST}"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            arrow.copy_files(self._at(f"{prefix}/{name}"), str(target / name), source_filesystem=self.fs)
        return target

    @contextmanager
    def fetched(self, prefix: str) -> Iterator[Path]:
        """`download` for the length of a block: a copy that was made for it is deleted at its end."""
        folder = self.download(prefix)
        try:
            yield folder
        finally:
            if not self.local_path:
                _delete(folder)

    def require_writable(self) -> None:
        """Raises UserError now, rather than after hours, where the root cannot be written."""
        probe = f".probe-{uuid4().hex}"
        self.write_bytes(probe, b"x")
        self.remove(probe)

    def sweep(self, prefix: str = "") -> int:
        """Delete what killed writers left half-written; returns how many. Only for who holds the study's lock."""
        left = [] if not self.local_path else list((self.local_path / prefix).rglob(f"{_TEMPORARY}*"))
        for path in left:
            _delete(path)
        return len(left)

    @contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            try:
                yield
            except SafetensorError as error:  # which is what a full disk is to safetensors
                code = re.search(r"os error (\d+)", str(error))
                if not code:
                    raise
                raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        except OSError as error:
            advice = "free some space there" if error.errno in _FULL else "make it writable"
            reason = error.strerror or str(error).splitlines()[0]
            where = self.uri if path.startswith(".probe-") else self.join(path)
            raise UserError(f"cannot write {masked(where)}: {reason}; {advice}, or choose another folder") from error


def masked(text: str) -> str:
    """`text` with names and passwords in its addresses, and all but harmless options, as ``***``: what is stored is shown, and
    handed on."""
    text = re.sub(r"://[^/?#\s]*@", "://***@", text)
    return re.sub(r"([?&](?!(?:region|scheme|endpoint_override|allow_\w+)=)[^=&\s]+=)[^&\s]+", r"\1***", text)


def _open_remote(uri: str) -> tuple[arrow.FileSystem, str]:
    import fsspec

    try:
        if uri.split("://")[0] in _ARROW:
            filesystem, base = arrow.FileSystem.from_uri(uri)  # which asks for a bucket's region
            return filesystem, base.rstrip("/")
        filesystem, base = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot open {masked(uri)}: {reason}; give a local path or a URI such as s3://bucket/folder"
        ) from error
    return arrow.PyFileSystem(arrow.FSSpecHandler(filesystem)), base.rstrip("/")


@contextmanager
def _renamed(target: Path) -> Iterator[Path]:
    """Yield a fresh name beside `target`, renamed to it at the end, or deleted where the block raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}{uuid4().hex}-{target.name}")
    try:
        yield temporary
        if temporary.is_dir() and target.exists():  # a folder is not replaced by a rename
            old = target.with_name(f"{_TEMPORARY}{uuid4().hex}-{target.name}")
            target.rename(old)
            temporary.rename(target)
            _delete(old)
        else:
            os.replace(temporary, target)
        _fsync(target.parent)
    finally:
        _delete(temporary)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
