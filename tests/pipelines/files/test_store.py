"""The store on a disk and on an object store. The object store is fsspec's memory://."""

import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from pyarrow import fs as arrow

from pipelines.files.store import MANIFEST, Store
from tests.support.builders import ROOT
from uvb.errors import UserError


@pytest.fixture(params=["local", "file", "memory"])
def store(request, tmp_path):
    addresses = {
        "local": str(tmp_path / "study"),
        "file": f"file://{tmp_path}/study",
        "memory": f"memory://{uuid4().hex}/study",
    }
    return Store(addresses[request.param])


def test_store_reads_what_it_wrote(store):
    assert not store.exists("models/a/spec.json")
    assert store.list("models") == []
    store.write_json("models/a/spec.json", {"sigma": 0.3})
    store.write_bytes("models/b/blob", b"\x00\x01")
    store.write_bytes("models/b/blob", b"\x02")
    assert store.read_json("models/a/spec.json") == {"sigma": 0.3}
    assert store.read_bytes("models/b/blob") == b"\x02"
    assert store.list("models") == ["a", "b"]
    assert store.stamps("models").keys() == {"models/a/spec.json", "models/b/blob"}
    assert store.stamps()["models/b/blob"][1] == 1
    store.remove("models/b")
    store.remove("models/b")
    assert store.list("models") == ["a"]
    with pytest.raises(FileNotFoundError):
        store.read_bytes("models/b/blob")


def test_store_is_pickled_as_its_address(store):
    store.write_bytes("deep/down", b"x")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.read_bytes("deep/down") == b"x"
    assert Store(store.join("deep")).read_bytes("down") == b"x"


def test_store_uploads_and_downloads_a_folder(store, tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_bytes(b"1")
    (source / "gone").write_bytes(b"old")
    (source / "sub" / "b").write_bytes(b"2" * 1000)
    store.upload(source, "models/m/model")
    (source / "gone").unlink()
    store.upload(source, "models/m/model")
    assert store.is_complete("models/m/model")
    for folder in (store.download("models/m/model"), store.download("models/m/model", tmp_path / "into")):
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert names == {"a", "sub/b"}
        assert (folder / "sub" / "b").read_bytes() == b"2" * 1000
    with pytest.raises(FileNotFoundError):
        store.download("models/m/state/7")


def test_store_folder_leaves_nothing_where_its_block_raises(store):
    def torn():
        with store.folder("state/1") as folder:
            (folder / "weights").write_bytes(b"half")
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        torn()
    assert not store.exists("state/1")
    assert store.list("state") == []


def test_store_folder_without_its_manifest_is_absent():
    store = Store(f"memory://{uuid4().hex}/study")
    with store.folder("state/1") as folder:
        (folder / "weights").write_bytes(b"w")
    store.remove(f"state/1/{MANIFEST}")  # as if the writer was killed before the last put
    assert store.exists("state/1/weights")
    assert not store.is_complete("state/1")
    with pytest.raises(FileNotFoundError, match="no complete folder"):
        store.download("state/1")


def test_store_upload_that_breaks_off_never_looks_whole(tmp_path, monkeypatch):
    """An object store has no rename, so the old manifest is removed first and the new one is written last."""
    store = Store(f"memory://{uuid4().hex}/study")
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"old")
    store.upload(tmp_path, "model")
    assert store.is_complete("model")
    copy, seen = arrow.copy_files, []

    def breaks_off(source, target, **options):
        seen.append(store.is_complete("model"))
        if len(seen) == 2:
            raise OSError("connection lost")
        copy(source, target, **options)

    monkeypatch.setattr(arrow, "copy_files", breaks_off)
    with pytest.raises(UserError, match="connection lost"):
        store.upload(tmp_path, "model")
    assert seen == [False, False]
    assert store.exists("model/a")
    assert not store.is_complete("model")
    with pytest.raises(FileNotFoundError):
        store.download("model")


def test_store_remove_that_breaks_off_never_looks_whole(tmp_path):
    whole = Store(f"memory://{uuid4().hex}/study")
    (tmp_path / "a").write_bytes(b"old")
    whole.upload(tmp_path, "model")

    class CannotDelete:
        """The store's file system, except that no folder can be deleted."""

        def __getattr__(self, name):
            return getattr(whole.fs, name)

        def delete_dir(self, path):
            raise OSError("connection lost")

    broken = Store(whole.uri)
    broken.fs = CannotDelete()
    with pytest.raises(UserError, match="connection lost"):
        broken.remove("model")
    assert whole.exists("model/a")
    assert not whole.is_complete("model")


def test_store_keeps_the_old_file_if_a_writer_is_killed_and_sweeps_the_new_one(tmp_path):
    store = Store(tmp_path)
    store.write_bytes("tables/losses.parquet", b"old")
    code = (
        "import os, signal; from pipelines.files import store as s\n"
        "s.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"s.Store({str(tmp_path)!r}).write_bytes('tables/losses.parquet', b'new')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.read_bytes("tables/losses.parquet") == b"old"
    assert len(list((tmp_path / "tables").iterdir())) == 2
    assert store.list("tables") == ["losses.parquet"]
    assert store.sweep() == 1
    assert len(list((tmp_path / "tables").iterdir())) == 1


def _write_file(store: Store, source: Path) -> None:
    store.write_bytes("a", (source / "file").read_bytes())


def _write_folder(store: Store, source: Path) -> None:
    store.upload(source, "a")


def _read(store: Store) -> list[bytes]:
    return [path.read_bytes() for path in sorted(store.path("").rglob("*")) if path.is_file()]


@pytest.mark.parametrize("write", [_write_file, _write_folder])
def test_store_keeps_the_old_contents_where_the_disk_is_full(write: Callable[[Store, Path], None], tmp_path: Path) -> None:
    store, source = Store(tmp_path / "store"), tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"old")
    write(store, source)
    (source / "file").write_bytes(b"x" * 5000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the kernel refuses the rest, as on a full disk
    try:
        with pytest.raises(UserError, match=r"cannot write .*/a: .*; free some space there") as error:
            write(store, source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert _read(store) == [b"old"]
    assert os.listdir(tmp_path / "store") == ["a"]


def test_require_writable_refuses_at_the_start(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*; make it writable, or choose another folder"):
        Store(tmp_path / "file" / "study").require_writable()
    Store(tmp_path / "ok").require_writable()
    assert os.listdir(tmp_path / "ok") == []


def test_store_says_what_failed_if_the_error_has_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*/a: OSError; make it writable"), Store(tmp_path).folder("a"):
        raise OSError


def test_store_appends_options_to_every_path():
    """With the option `endpoint_override` users name their own S3 server."""
    store = Store("s3://bucket/studies/?region=x&endpoint_override=http%3A%2F%2Fhost")
    inner = Store(store.join("models", "abc"))
    assert inner.uri == "s3://bucket/studies/models/abc?region=x&endpoint_override=http%3A%2F%2Fhost"
    assert inner._at("done.json") == "bucket/studies/models/abc/done.json"


def test_store_refuses_an_unknown_kind_of_uri():
    with pytest.raises(UserError, match="cannot open nosuch://x"):
        Store("nosuch://x/y")
