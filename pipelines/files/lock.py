"""A study's lock. It lets only one driver run a study at a time. If the driver is killed, the lock becomes free.

On a local disk the operating system locks ``lock.json``, so the lock is free as soon as its holder dies. On an object store,
or on a disk without locks, the holder changes ``lock.json`` every few seconds. A holder on another machine counts as alive if
that file changes while we watch it. So the clocks of the two machines are not compared.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from pipelines.files.formats import HolderJson
from pipelines.files.masking import masked
from pipelines.files.store import Store
from uvb.errors import UserError
from uvb.regular import regular

LOCK = "lock.json"
BEAT_SECONDS = 10.0  # between two changes of the file by its holder
STALE_SECONDS = 60.0  # if the file does not change for this long, while we watch it, its holder counts as dead
LOOK_SECONDS = 1.0  # between two looks at the file
SETTLE_SECONDS = 2.0  # after this, two drivers that started at the same time have both written the file


@contextmanager
def study_lock(store: Store, study: str, say: Callable[[str], None] = lambda line: None) -> Iterator[Callable[[], None]]:
    """Hold the lock of a study for this process. Yield a cheap function that raises UserError if the lock is lost.

    Call that function from time to time. A driver loses the lock only if it misses its own heartbeats, for instance while its
    machine is suspended.

    Args:
        store: the study's folder.
        study: the study's name in messages.
        say: called with a line for the user if it takes time to find out whether another holder still runs.

    Raises:
        UserError: the folder cannot be written, or another driver has the lock. The message names that driver and its start.
    """
    me = _identity()
    descriptor = _lock_file(store) if store.local_path else None
    try:
        if descriptor is not None and _flocked(descriptor, study, store):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me, indent=1).encode(), 0)  # write in place, since a rename would lose the lock
            yield lambda: None
        else:
            with _heartbeat_lock(store, study, me, say) as check:
                yield check
    finally:
        if descriptor is not None:
            # This frees the lock. Do not delete lock.json: one driver could then lock the old file, and another a new one.
            os.close(descriptor)


def _lock_file(store: Store) -> int:
    try:
        store.path("").mkdir(parents=True, exist_ok=True)
        return os.open(regular(store.path(LOCK)), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {store.uri}: {error.strerror}; choose another --storage") from error


def _flocked(descriptor: int, study: str, store: Store) -> bool:
    """Take the operating system's lock. Return False if the disk has no locks, like some network disks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(study, _read(store), store) from None
    except OSError:
        return False
    return True


@contextmanager
def _heartbeat_lock(store: Store, study: str, me: dict[str, Any], say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    holder = _read(store)
    if holder and _alive(store, holder, say):
        raise _refusal(study, holder, store)
    _take(store, study, me)
    stop, lost = threading.Event(), threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT_SECONDS):
            count += 1
            try:
                holder = _read(store)
                if holder and holder["token"] != me["token"]:
                    lost.set()
                    return
                store.write_json(LOCK, {**me, "beat": count})
            except Exception:  # perhaps the store is unreachable for a moment; the next beat tries again
                continue

    def check() -> None:
        if lost.is_set():
            raise _refusal(study, _read(store), store)

    thread = threading.Thread(target=beat, name="study-lock", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
        if not lost.is_set():
            store.remove(LOCK)


def _take(store: Store, study: str, me: dict[str, Any]) -> None:
    """Write our identity into lock.json, and check that no other driver has replaced it."""
    store.remove(LOCK)  # if there is one, its holder is dead
    try:
        store.create(LOCK, json.dumps(me, indent=1).encode())
    except FileExistsError:
        raise _refusal(study, _read(store), store) from None
    time.sleep(SETTLE_SECONDS)  # where the store cannot create a file exclusively, the last writer gets the lock
    holder = _read(store)
    if holder.get("token") != me["token"]:
        raise _refusal(study, holder, store)


def _identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "place": _place(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "beat": 0,
        "token": uuid4().hex,
    }


def _place() -> str:
    """An identifier of this container and this boot of its machine. A process id identifies a process only there."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _alive(store: Store, holder: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Whether a holder still runs. Look for its process if its `place` is ours. Otherwise watch whether lock.json changes."""
    if holder["place"] == _place():
        try:  # a later process may have the same id, but not the same start time
            return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) < 2.0
        except psutil.NoSuchProcess:
            return False
    who = f"process {holder['pid']} on host {holder['host']}"
    say(f"waiting up to {STALE_SECONDS:.0f} s to see whether {who} still runs this study")
    deadline = time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        now = _read(store)
        if now and now != holder:
            return True
    return False


def _read(store: Store) -> dict[str, Any]:
    """The lock's holder; {} if there is none, or if lock.json is only half written."""
    return store.find_json(LOCK, HolderJson)


def _refusal(study: str, holder: dict[str, Any], store: Store) -> UserError:
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on host {holder['host']} since {holder['since']}"
    return UserError(
        f"study {study!r} in {masked(store.uri)} is already run by {who}; wait for it, stop it, or choose another --study"
    )
