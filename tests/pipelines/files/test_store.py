"""The store and the study's lock, on a disk and on an object store, for which fsspec's memory:// stands here."""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest
from pyarrow import fs as arrow

from pipelines.files import lock
from pipelines.files.lock import LOCK, study_lock
from pipelines.files.store import MANIFEST, Store, masked
from uvb.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["local", "file", "memory"])
def store(request, tmp_path):
    return Store(
        {
            "local": str(tmp_path / "study"),
            "file": f"file://{tmp_path}/study",
            "memory": f"memory://{uuid4().hex}/study",
        }[request.param]
    )


def test_files_come_back_as_they_went(store):
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


def test_a_copy_sent_to_a_worker_sees_the_same_files(store):
    store.write_bytes("deep/down", b"x")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.read_bytes("deep/down") == b"x"
    assert Store(store.join("deep")).read_bytes("down") == b"x"


def test_a_folder_goes_up_and_comes_down(store, tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_bytes(b"1")
    (source / "gone").write_bytes(b"old")
    (source / "sub" / "b").write_bytes(b"2" * 1000)
    store.upload(source, "models/m/model")
    (source / "gone").unlink()
    store.upload(source, "models/m/model")  # replaces
    assert store.is_complete("models/m/model")
    for folder in (store.download("models/m/model"), store.download("models/m/model", tmp_path / "into")):
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert names == {"a", "sub/b"}
        assert (folder / "sub" / "b").read_bytes() == b"2" * 1000
    with pytest.raises(FileNotFoundError):
        store.download("models/m/state/7")


def test_a_folder_that_fails_midway_leaves_nothing(store):
    def torn():
        with store.folder("state/1") as folder:
            (folder / "weights").write_bytes(b"half")
            raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        torn()
    assert not store.exists("state/1")
    assert store.list("state") == []


def test_a_folder_without_its_manifest_is_absent_on_an_object_store(tmp_path):
    store = Store(f"memory://{uuid4().hex}/study")
    with store.folder("state/1") as folder:
        (folder / "weights").write_bytes(b"w")
    store.remove(f"state/1/{MANIFEST}")  # what a kill before the last put leaves
    assert store.exists("state/1/weights")
    assert not store.is_complete("state/1")
    with pytest.raises(FileNotFoundError, match="no complete folder"):
        store.download("state/1")


def test_an_upload_that_breaks_off_leaves_no_folder_that_looks_whole(tmp_path, monkeypatch):
    """An object store has no rename: while a folder is replaced, the old manifest is gone first, and the new one comes last."""
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

    class CannotDelete:
        """The store's file system, except that a folder's deletion breaks off after its beginning."""

        def __getattr__(self, name):
            return getattr(whole.fs, name)

        def delete_dir(self, path):
            raise OSError("connection lost")

    monkeypatch.setattr(arrow, "copy_files", copy)
    whole = Store(f"memory://{uuid4().hex}/study")
    whole.upload(tmp_path, "model")
    broken = Store(whole.uri)
    broken.fs = CannotDelete()
    with pytest.raises(UserError, match="connection lost"):
        broken.remove("model")
    assert whole.exists("model/a")
    assert not whole.is_complete("model")


def test_a_killed_writer_leaves_the_old_bytes_and_its_litter_is_swept(tmp_path):
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


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path):
    store = Store(tmp_path)
    store.write_bytes("a", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the kernel refuses the rest, as a full disk does
    try:
        with pytest.raises(UserError, match=r"cannot write .*/a: .*; free some space there") as error:
            store.write_bytes("a", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert store.read_bytes("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_root_that_cannot_be_written_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*; make it writable, or choose another folder"):
        Store(tmp_path / "file" / "study").require_writable()
    Store(tmp_path / "ok").require_writable()
    assert os.listdir(tmp_path / "ok") == []


def test_options_of_an_address_stay_behind_every_path():
    """An S3 server of one's own is named so."""
    store = Store("s3://bucket/studies/?region=x&endpoint_override=http%3A%2F%2Fhost")
    inner = Store(store.join("models", "abc"))
    assert inner.uri == "s3://bucket/studies/models/abc?region=x&endpoint_override=http%3A%2F%2Fhost"
    assert inner._at("done.json") == "bucket/studies/models/abc/done.json"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        ("http://me:se@cret@host/x", "http://***@host/x"),
        ("--tracking-uri http://me:secret@host --storage s3://b/c", "--tracking-uri http://***@host --storage s3://b/c"),
        ("s3://b/c?region=eu&secret_key=abc&Token=d", "s3://b/c?region=eu&secret_key=***&Token=***"),
        ("s3://b?X-Amz-Signature=abc", "s3://b?X-Amz-Signature=***"),
        ("mssql://h?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret", "mssql://h?odbc_connect=***"),
        ("sqlite:///studies/me@work/mlflow.db", "sqlite:///studies/me@work/mlflow.db"),
    ],
)
def test_what_is_stored_holds_no_passwords(address, shown):
    assert masked(address) == shown


def test_an_unknown_kind_of_uri_is_refused():
    with pytest.raises(UserError, match="cannot open nosuch://x"):
        Store("nosuch://x/y")


HOLDER = """
import sys, time
from pipelines.files import lock
from pipelines.files.store import Store
with lock.study_lock(Store(sys.argv[1]), "digits"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_study_of_a_name_is_refused_and_a_killed_ones_lock_is_free(tmp_path):
    store = Store(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        line = f"study 'digits' .* already run by process {holder.pid} on host"
        with pytest.raises(UserError, match=line) as error, study_lock(store, "digits"):
            pytest.fail("two hold it")
        assert "\n" not in str(error.value)
    finally:
        holder.kill()
        holder.wait()
    with study_lock(store, "digits"):
        assert store.read_json(LOCK)["pid"] == os.getpid()
        with pytest.raises(UserError, match=str(os.getpid())), study_lock(store, "digits"):
            pytest.fail("two in one process hold it")
    with study_lock(store, "digits"):
        pass


@pytest.fixture
def remote(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    return Store(f"memory://{uuid4().hex}/study")


def test_the_heartbeat_lock_refuses_and_frees(remote):
    with study_lock(remote, "digits") as check:
        with pytest.raises(UserError, match="already run by process"), study_lock(remote, "digits"):
            pytest.fail("two hold it")
        beats = lambda: [holder["beat"]] if (holder := lock._read(remote)) else []  # noqa: E731  # in memory, a file is torn while it is written
        deadline, first = time.monotonic() + 20, None
        while time.monotonic() < deadline:
            now = beats()
            first = first or now
            if now > first:
                break
            time.sleep(0.05)
        assert first
        assert now > first, "no second beat"
        check()
    assert not remote.exists(LOCK)


def test_of_two_who_start_together_one_gets_the_heartbeat_lock(remote):
    won, refused = [], []

    def contend():
        try:
            with study_lock(remote, "digits"):
                won.append(1)
                time.sleep(0.5)
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (len(won), len(refused)) == (1, 3)


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({}, False),
        ({"pid": 2**22 + 1}, True),  # no such process
        ({"started": 1.0}, True),  # the number went to a later process
        ({"place": "elsewhere", "beat": -30}, False),
        ({"place": "elsewhere", "beat": -61}, True),
    ],
)
def test_a_heartbeat_lock_is_stale_when_its_holder_is_gone(remote, change, free):
    if "beat" in change:
        change = {**change, "beat": time.time() + change["beat"]}
    remote.write_bytes(LOCK, json.dumps({**lock._identity(), **change}).encode())
    if free:
        with study_lock(remote, "digits"):
            assert remote.read_json(LOCK)["pid"] == os.getpid()
    else:
        with pytest.raises(UserError, match="already run"), study_lock(remote, "digits"):
            pytest.fail("taken from a living holder")


def test_a_heartbeat_lock_taken_by_another_is_noticed(remote):
    with study_lock(remote, "digits") as check:
        thief = {**lock._identity(), "place": "elsewhere", "host": "thief"}
        for _ in range(20):  # a beat may be under way
            remote.write_json(LOCK, thief)
            time.sleep(0.02)
        time.sleep(0.1)
        with pytest.raises(UserError, match="on host thief"):
            check()
    assert remote.read_json(LOCK)["host"] == "thief"
