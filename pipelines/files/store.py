"""Read and write a study's files, in a local folder or at a URI such as ``s3://bucket/studies/digits``. No other code does.

A file or folder is whole or absent. On a local disk it gets its name by a rename, after its bytes are on the disk. On an object
store a file is one put. The manifest of a folder is put last, and the folder is absent until then.
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

from pyarrow import NativeFile
from pyarrow import fs as arrow
from safetensors import SafetensorError

from pipelines.files.masking import masked, masked_json
from pipelines.files.names import inside
from pipelines.files.opening import answered, is_remote, local_path, open_remote, split_remote
from uvb.atomic import TEMPORARY, delete, replacing
from uvb.decoding import decoded, parsed
from uvb.errors import UserError

MANIFEST = ".manifest.json"  # names that begin with a dot belong to the store, and are never listed
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Store:
    """Files below one root. Every path argument is relative to the root and has forward slashes.

    Args:
        root: a local path, or a URI that Arrow (file, s3, gs, abfs, hdfs) or fsspec (memory, ...) understands.

    Raises:
        UserError: the URI is of an unknown kind; or a write fails, since the disk is full or refuses it.
        FileNotFoundError: a file to read is absent.
    """

    def __init__(self, root: "str | os.PathLike[str] | Store"):
        text = root.uri if isinstance(root, Store) else os.fspath(root)
        self.uri: str
        self.local_path: Path | None = None
        if not is_remote(text):
            self.local_path = local_path(text)
            self.uri = self._base = self._address = str(self.local_path)
            self._options = ""
            self.fs: arrow.FileSystem = arrow.LocalFileSystem()
        else:
            self._address, self._options = split_remote(text)  # `join` puts options behind the path
            self.uri = self._address + self._options
            self.fs, self._base = open_remote(self.uri)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.uri,)  # an open file system cannot travel to a worker; its address can

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
            UserError: it would lie outside the store.
        """
        assert self.local_path is not None
        return self.local_path / inside(path)

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there. For a folder, see `is_complete` too."""
        return self.fs.get_file_info(self._at(path)).type != arrow.FileType.NotFound

    def is_complete(self, prefix: str) -> bool:
        """Whether a folder that `folder` or `upload` wrote is whole."""
        return self.exists(prefix if self.local_path else f"{prefix}/{MANIFEST}")

    def read_bytes(self, path: str) -> bytes:
        with self.fs.open_input_stream(self._at(path), compression=None) as stream:
            return bytes(stream.read())

    def open_at(self, path: str) -> NativeFile:
        """A file to read in parts, by ``read_at(bytes, offset)``. The caller closes it."""
        return self.fs.open_input_file(self._at(path))

    def put_file(self, local: Path, path: str) -> None:
        """Put a file here that will never change, whole or not at all: as a hard link on the same disk, else as a copy."""
        with self._writing(path):
            if not self.local_path:
                arrow.copy_files(str(local), self._at(path), destination_filesystem=self.fs)
                return
            with replacing(self.path(path)) as temporary:
                try:
                    os.link(local, temporary)
                except OSError:  # this is another disk, or one without links
                    shutil.copyfile(local, temporary)

    def read_json(self, path: str) -> Any:
        return json.loads(self.read_bytes(path))

    def find_json(self, path: str, kind: type = dict) -> dict[str, Any]:
        """A JSON object that fits `kind` (a TypedDict); {} if it is absent or damaged. Only for files that are not vital."""
        try:
            blob = parsed(self.read_bytes(path), path)
            decoded(blob, kind, path)
        except (OSError, UserError):
            return {}
        return blob if isinstance(blob, dict) else {}

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file durably. Readers see the old bytes or the new ones; a remote store must have atomic puts, as S3 has."""
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
        """Write a file that must not exist yet, by a conditional put where the store has one.

        Raises:
            FileExistsError: it exists.
        """
        if self.exists(path):
            raise FileExistsError(self.join(path))
        fsspec: Any = getattr(getattr(self.fs, "handler", None), "fs", None)
        try:
            fsspec.pipe_file(self._at(path), data, mode="create")
        except (AttributeError, NotImplementedError, TypeError):  # this store has no conditional put: the check above must do
            self.write_bytes(path, data)

    def list(self, prefix: str = "") -> list[str]:
        """The names of all that lies directly in a folder, sorted; [] where there is no such folder."""
        selector = arrow.FileSelector(self._at(prefix), allow_not_found=True)
        return sorted(i.base_name for i in self.fs.get_file_info(selector) if not i.base_name.startswith("."))

    def stamps(self, prefix: str = "") -> dict[str, tuple[int, int]]:
        """Path -> (modification time in ns, size) of every file below `prefix`: this shows which files changed."""
        selector = arrow.FileSelector(self._at(prefix), allow_not_found=True, recursive=True)
        paths = {i.path[len(self._base) :].strip("/"): i for i in self.fs.get_file_info(selector) if i.is_file}
        return {p: (i.mtime_ns or 0, i.size) for p, i in paths.items() if not any(n[0] == "." for n in p.split("/"))}

    def remove(self, prefix: str) -> None:
        """Remove a file, or a folder with its contents; do nothing where there is none."""
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
        """Yield an empty local folder to fill. It replaces `prefix` when the block ends, and vanishes if the block raises.

        On a local disk it already lies beside `prefix`, so that large checkpoints are written once.
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
        """Copy a local folder here, whole or not at all, in place of an older one."""
        with self.folder(prefix) as temporary:
            shutil.copytree(local_dir, temporary, dirs_exist_ok=True)

    def download(self, prefix: str, into: "str | os.PathLike[str] | None" = None) -> Path:
        """A local folder with the contents of `prefix`, to read only.

        A local store gives the folder itself, unless `into` is given. A remote one makes a copy, which the caller may delete.

        Raises:
            FileNotFoundError: there is no such folder, or its upload never ended.
        """
        if not self.is_complete(prefix):
            raise FileNotFoundError(f"no complete folder at {self.join(prefix)}")
        if self.local_path:
            here = self.path(prefix)
            return here if into is None else Path(shutil.copytree(here, into, dirs_exist_ok=True))
        target = Path(into if into is not None else tempfile.mkdtemp(prefix="uvb-store-"))
        for name in self.read_json(f"{prefix}/{MANIFEST}"):
            (target / inside(name)).parent.mkdir(parents=True, exist_ok=True)
            arrow.copy_files(self._at(f"{prefix}/{name}"), str(target / name), source_filesystem=self.fs)
        return target

    @contextmanager
    def fetched(self, prefix: str) -> Iterator[Path]:
        """`download` for the length of a block; the copy of a remote store is deleted at its end."""
        folder = self.download(prefix)
        try:
            yield folder
        finally:
            if not self.local_path:
                delete(folder)

    def require_writable(self) -> None:
        """Raise UserError if the root cannot be written or does not answer. A study asks this before hours of work."""
        probe = f".probe-{uuid4().hex}"

        def write() -> None:
            self.write_bytes(probe, b"x")
            self.remove(probe)

        write() if self.local_path else answered(self.uri, write)

    def sweep(self, prefix: str = "") -> int:
        """Delete the half-written files of killed writers; return how many. Only the holder of the study's lock may do this."""
        left = list(self.path(prefix).rglob(f"{TEMPORARY}*")) if self.local_path else []
        for path in left:
            delete(path)
        return len(left)

    @contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            try:
                yield
            except SafetensorError as error:  # how safetensors says that a disk is full
                code = re.search(r"os error (\d+)", str(error))
                if not code:
                    raise
                raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        except NotImplementedError as error:  # fsspec raises it for stores that nobody can write, such as http://
            raise UserError(
                f"cannot write {masked(self.uri)}: this kind of store is read-only; choose another folder"
            ) from error
        except OSError as error:
            advice = "free some space there" if error.errno in FULL else "make it writable"
            reason = error.strerror or str(error).splitlines()[0]
            where = self.uri if path.startswith(".probe-") else self.join(path)
            raise UserError(f"cannot write {masked(where)}: {reason}; {advice}, or choose another folder") from error


def open_store(root: "str | os.PathLike[str]", name: str) -> Store:
    """The store of the study `name` below `root`. A remote store has answered once when this returns.

    Raises:
        UserError: there is no such kind of store, or it does not answer within seconds.
    """
    if not is_remote(text := os.fspath(root)):
        return Store(Store(root).join(name))
    address, options = split_remote(text)

    def answering() -> Store:
        store = Store(f"{address}/{name}{options}")
        store.exists("study.json")
        return store

    return answered(f"{address}/{name}{options}", answering)  # opening and asking share one time limit
