"""The study's lock on a disk and on an object store. The object store is fsspec's memory://."""

import json
import os
import subprocess
import sys
import threading
import time
from uuid import uuid4

import pytest

from pipelines.files import lock
from pipelines.files.lock import LOCK, study_lock
from pipelines.files.store import Store
from tests.support.builders import ROOT
from uvb.errors import UserError

HOLDER = """
import sys, time
from pipelines.files import lock
from pipelines.files.store import Store
with lock.study_lock(Store(sys.argv[1]), "digits"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_refuses_a_second_driver_and_is_free_after_a_kill(tmp_path):
    store = Store(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        line = f"study 'digits' .* already run by process {holder.pid} on host"
        with pytest.raises(UserError, match=line) as error, study_lock(store, "digits"):
            pytest.fail("two processes hold the lock")
        assert "\n" not in str(error.value)
    finally:
        holder.kill()
        holder.wait()
    with study_lock(store, "digits"):
        assert store.read_json(LOCK)["pid"] == os.getpid()
        with pytest.raises(UserError, match=str(os.getpid())), study_lock(store, "digits"):
            pytest.fail("two drivers in one process hold the lock")
    with study_lock(store, "digits"):
        pass


@pytest.fixture
def remote(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.6)
    return Store(f"memory://{uuid4().hex}/study")


def test_heartbeat_lock_refuses_a_second_driver_and_is_removed_at_the_end(remote):
    with study_lock(remote, "digits") as check:
        with pytest.raises(UserError, match="already run by process"), study_lock(remote, "digits"):
            pytest.fail("two drivers hold the lock")
        deadline, beats = time.monotonic() + 20, []
        while not beats or beats[-1] <= beats[0]:
            assert time.monotonic() < deadline, "the holder does not change lock.json"
            if holder := lock._read(remote):  # memory:// shows half-written files, for which `_read` gives {}
                beats.append(holder["beat"])
            time.sleep(0.05)
        check()
    assert not remote.exists(LOCK)


def test_heartbeat_lock_has_one_winner(remote):
    won, refused = [], []

    def contend():
        try:
            with study_lock(remote, "digits"):
                won.append(1)
                time.sleep(0.5)
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 3)


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({}, False),
        ({"pid": 2**22 + 1}, True),  # no process has this id, which is above Linux's limit
        ({"started": 1.0}, True),  # a later process has the holder's id
    ],
)
def test_heartbeat_lock_is_free_when_its_holder_is_gone(remote, change, free):
    remote.write_bytes(LOCK, json.dumps({**lock._identity(), **change}).encode())
    if free:
        with study_lock(remote, "digits"):
            assert remote.read_json(LOCK)["pid"] == os.getpid()
    else:
        with pytest.raises(UserError, match="already run"), study_lock(remote, "digits"):
            pytest.fail("taken from a living holder")


def test_heartbeat_lock_notices_that_it_was_stolen(remote):
    with study_lock(remote, "digits") as check:
        thief = {**lock._identity(), "place": "elsewhere", "host": "thief"}
        for _ in range(20):  # write often, because the holder's heartbeat may overwrite the file
            remote.write_json(LOCK, thief)
            time.sleep(0.02)
        time.sleep(0.1)
        with pytest.raises(UserError, match="on host thief"):
            check()
    assert remote.read_json(LOCK)["host"] == "thief"


@pytest.mark.parametrize("clock", [-3600, 61, 3600])
def test_lock_of_a_living_remote_holder_is_kept_whatever_its_clock(remote, clock, monkeypatch):
    monkeypatch.setattr(lock, "STALE_SECONDS", 10.0)
    holder = {**lock._identity(), "place": "elsewhere", "host": "far", "beat": time.time() + clock}
    remote.write_json(LOCK, holder)
    stop = threading.Event()

    def beat():
        while not stop.wait(0.1):
            holder["beat"] += 1
            remote.write_json(LOCK, holder)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"already run by .* on host far"), study_lock(remote, "digits"):
            pytest.fail("taken from a living holder")
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("clock", [-3600, 0, 3600])
def test_lock_of_a_dead_remote_holder_is_taken_whatever_its_clock(remote, clock):
    remote.write_json(LOCK, {**lock._identity(), "place": "elsewhere", "host": "far", "beat": time.time() + clock})
    said = []
    with study_lock(remote, "digits", said.append):
        assert remote.read_json(LOCK)["pid"] == os.getpid()
    (line,) = said
    assert "on host far still runs this study" in line


def test_lock_ignores_a_damaged_file(remote):
    for text in ("{", '{"pid": "x"}'):
        remote.write_bytes(LOCK, text.encode())
        with study_lock(remote, "digits"):
            assert remote.read_json(LOCK)["pid"] == os.getpid()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_lock_that_is_no_file_is_refused_in_one_line(make, tmp_path):
    make(tmp_path / LOCK)
    said = r"cannot write .*: not a regular file; choose another --storage"
    with pytest.raises(UserError, match=said) as error, study_lock(Store(tmp_path), "digits"):
        pytest.fail("the lock is held")
    assert "\n" not in str(error.value)
