"""Read and write a study's files, in a local folder or at a URI such as ``s3://bucket/studies/digits``.

Every file or folder is either whole or absent. In a local folder it has a temporary name until all its bytes are on the disk.
An object store gets each file by one put. It gets a folder's manifest last, and until then the folder counts as absent.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyarrow import NativeFile
from pyarrow import fs as arrow
from safetensors import SafetensorError

from pipelines.files.masking import masked, masked_json
from pipelines.files.names import inside
from pipelines.files.opening import asked, from_uri, is_remote, local_path, split_remote
from uvb.atomic import TEMPORARY, delete, replacing
from uvb.decoding import decoded, parsed
from uvb.errors import UserError, first_line

MANIFEST = ".manifest.json"  # names that begin with a dot belong to the store, and are never listed
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Store:
    """Files below one root. Every path argument is relative to the root and has forward slashes.

    Args:
        root: a local path, or a URI that Arrow (file, s3, gs, abfs, hdfs) or fsspec (memory, ...) understands.
        opened: the result of `from_uri` for a remote root. None: open the root now.

    Raises:
        UserError: the URI is of an unknown kind, or a write fails, for instance because the disk is full.
        FileNotFoundError: a file to read is absent.
    """

    def __init__(self, root: "str | os.PathLike[str] | Store", opened: tuple[arrow.FileSystem, str] | None = None):
        text = root.uri if isinstance(root, Store) else os.fspath(root)
        self.uri: str
        self.local_path: Path | None = None
        if not is_remote(text):
            self.local_path = local_path(text)
            self.uri = self._base = self._address = str(self.local_path)
            self._options = ""
            self.fs: arrow.FileSystem = arrow.LocalFileSystem()
        else:
            self._address, self._options = split_remote(text)  # `join` puts the options after the path
            self.uri = self._address + self._options
            self.fs, self._base = opened or asked(self.uri, lambda: from_uri(self.uri))()

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.uri,)  # pickle the address, since an open file system cannot be sent to a worker

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def join(self, *parts: str) -> str:
        """The full address of a path, for people and for workers: ``Store(store.join("models", spec_id))``."""
        return "/".join([self._address, *(part.strip("/") for part in parts if part)]) + self._options

    def _at(self, path: str) -> str:
        return f"{self._base}/{inside(path)}".rstrip("/")

    def path(self, path: str) -> Path:
        """The path of a file or folder of a local store.

        Raises:
            UserError: `path` leads out of the store.
        """
        assert self.local_path is not None
        return self.local_path / inside(path)

    def exists(self, path: str) -> bool:
        """Whether a file or folder exists. A remote folder may exist only in part: see `is_complete`."""
        return self.fs.get_file_info(self._at(path)).type != arrow.FileType.NotFound

    def is_complete(self, prefix: str) -> bool:
        """Whether a folder that `folder` or `upload` wrote is whole."""
        return self.exists(prefix if self.local_path else f"{prefix}/{MANIFEST}")

    def read_bytes(self, path: str) -> bytes:
        with self.fs.open_input_stream(self._at(path), compression=None) as stream:
            return bytes(stream.read())

    def open_at(self, path: str) -> NativeFile:
        """Open a file to read parts of it by ``read_at(bytes, offset)``. The caller must close it."""
        return self.fs.open_input_file(self._at(path))

    def put_file(self, local: Path, path: str) -> None:
        """Put a file that will never change into the store: as a hard link if it is on the same disk, else as a copy."""
        with self._writing(path):
            if not self.local_path:
                arrow.copy_files(str(local), self._at(path), destination_filesystem=self.fs)
                return
            with replacing(self.path(path)) as temporary:
                try:
                    os.link(local, temporary)
                except OSError:  # the file is on another disk, or this disk has no links
                    shutil.copyfile(local, temporary)

    def read_json(self, path: str) -> Any:
        return json.loads(self.read_bytes(path))

    def find_json(self, path: str, kind: type = dict) -> dict[str, Any]:
        """Read a JSON object of the type `kind` (a TypedDict). Return {} if it is absent or damaged. Not for vital files."""
        try:
            blob = parsed(self.read_bytes(path), path)
            decoded(blob, kind, path)
        except (OSError, UserError):
            return {}
        return blob if isinstance(blob, dict) else {}

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file durably. A reader gets the old bytes or the new ones. In a remote store, this needs atomic puts."""
        with self._writing(path):
            if self.local_path:
                with replacing(self.path(path)) as temporary:
                    temporary.write_bytes(data)
            else:
                with self.fs.open_output_stream(self._at(path), compression=None) as stream:
                    stream.write(data)

    def write_json(self, path: str, value: Any) -> None:
        """Write `value` as JSON, without the passwords in its addresses."""
        self.write_bytes(path, json.dumps(masked_json(value), indent=1).encode())

    def create(self, path: str, data: bytes) -> None:
        """Write a file that must not exist yet, by a conditional put if the store has one.

        Raises:
            FileExistsError: the file exists.
        """
        if self.exists(path):
            raise FileExistsError(self.join(path))
        fsspec: Any = getattr(getattr(self.fs, "handler", None), "fs", None)
        if fsspec is None:  # Arrow's own stores have no conditional put: rely on the check above
            self.write_bytes(path, data)
        else:
            fsspec.pipe_file(self._at(path), data, mode="create")

    def list(self, prefix: str = "") -> list[str]:
        """The sorted names of the files and folders directly inside a folder; [] if there is no such folder."""
        selector = arrow.FileSelector(self._at(prefix), allow_not_found=True)
        names = [info.base_name for info in self.fs.get_file_info(selector)]
        return sorted(name for name in names if not name.startswith("."))

    def stamps(self, prefix: str = "") -> dict[str, tuple[int, int]]:
        """Path -> (modification time in ns, size) for every file below `prefix`, to tell which files have changed."""
        selector = arrow.FileSelector(self._at(prefix), allow_not_found=True, recursive=True)
        found = {}
        for info in self.fs.get_file_info(selector):
            path = info.path[len(self._base) :].strip("/")
            if info.is_file and not any(name.startswith(".") for name in path.split("/")):
                found[path] = (info.mtime_ns or 0, info.size)
        return found

    def remove(self, prefix: str) -> None:
        """Remove a file, or a folder with its contents. Do nothing if there is none."""
        kind = self.fs.get_file_info(self._at(prefix)).type
        with self._writing(prefix):
            if kind == arrow.FileType.File:
                self.fs.delete_file(self._at(prefix))
            elif kind == arrow.FileType.Directory:
                if not self.local_path and self.exists(f"{prefix}/{MANIFEST}"):
                    self.fs.delete_file(self._at(f"{prefix}/{MANIFEST}"))  # without it, the folder counts as absent
                self.fs.delete_dir(self._at(prefix))

    @contextmanager
    def folder(self, prefix: str) -> Iterator[Path]:
        """Yield an empty local folder to fill. After the block this folder replaces `prefix`, unless the block raises.

        In a local store the new folder is on the same disk as `prefix`, so that large checkpoints are not copied.
        """
        with self._writing(prefix):
            if self.local_path:
                with replacing(self.path(prefix)) as temporary:
                    temporary.mkdir()
                    yield temporary
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
        """Copy a local folder to `prefix`. The copy replaces an older folder as soon as the copy is whole."""
        with self.folder(prefix) as temporary:
            shutil.copytree(local_dir, temporary, dirs_exist_ok=True)

    def download(self, prefix: str, into: "str | os.PathLike[str] | None" = None) -> Path:
        """Return a local folder with the contents of `prefix`. The caller must not change it.

        A local store returns the folder itself, unless `into` is given. A remote store makes a copy, which the caller deletes.

        Raises:
            FileNotFoundError: there is no such folder, or its upload was not completed.
        """
        if not self.is_complete(prefix):
            raise FileNotFoundError(f"no complete folder at {self.join(prefix)}")
        if self.local_path:
            here = self.path(prefix)
            return here if into is None else Path(shutil.copytree(here, into, dirs_exist_ok=True))
        target = Path(into if into is not None else tempfile.mkdtemp(prefix="uvb-store-"))
        for name in map(inside, self.read_json(f"{prefix}/{MANIFEST}")):  # an absolute name would replace `target`
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            arrow.copy_files(self._at(f"{prefix}/{name}"), str(target / name), source_filesystem=self.fs)
        return target

    @contextmanager
    def fetched(self, prefix: str) -> Iterator[Path]:
        """Yield the folder that `download` returns. After the block, delete the copy if the store is remote."""
        folder = self.download(prefix)
        try:
            yield folder
        finally:
            if not self.local_path:
                delete(folder)

    def require_writable(self) -> None:
        """Raise UserError if the root cannot be written or does not answer. A study checks this before hours of work."""
        probe = f".probe-{uuid4().hex}"

        def write() -> None:
            self.write_bytes(probe, b"x")
            self.remove(probe)

        if self.local_path:
            write()
        else:
            asked(self.uri, write)()

    def sweep(self, prefix: str = "") -> int:
        """Delete files that killed processes left half written; return how many. Only the holder of the lock may call this."""
        left = list(self.path(prefix).rglob(f"{TEMPORARY}*")) if self.local_path else []
        for path in left:
            delete(path)
        return len(left)

    @contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        """Turn an error of the disk or store, while the block writes `path`, into a `UserError`."""
        try:
            try:
                yield
            except (SafetensorError, shutil.Error) as error:  # only their text has the error's number
                code = re.search(r"(?:os error|\[Errno) (\d+)", str(error))
                if not code:
                    raise
                raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        except NotImplementedError as error:  # fsspec raises it for read-only stores, such as http://
            raise UserError(
                f"cannot write {masked(self.uri)}: this kind of store is read-only; choose another folder"
            ) from error
        except OSError as error:
            advice = "free some space there" if error.errno in FULL else "make it writable"
            reason = error.strerror or first_line(error)
            where = self.uri if path.startswith(".probe-") else self.join(path)
            raise UserError(f"cannot write {masked(where)}: {reason}; {advice}, or choose another folder") from error


def asked_store(root: "str | os.PathLike[str]", name: str) -> Callable[[], Store]:
    """Begin to open the store of the study `name` below `root`. The function returned waits until a remote store has answered.

    Raises:
        UserError: `root` is no valid address. The function returned raises it if the store fails or does not answer in time.
    """
    text = os.fspath(root)
    if not is_remote(text):
        local = Store(Store(root).join(name))
        return lambda: local
    address, options = split_remote(text)
    uri = f"{address}/{name}{options}"

    def answering() -> Store:
        store = Store(uri, from_uri(uri))
        store.exists("study.json")
        return store

    return asked(uri, answering)
