"""One study of a name at a time: a second driver is refused, and the lock of a driver that was killed is free again.

On a local disk the operating system's lock on ``lock.json`` decides, so it is free the moment its holder dies. On an
object store, or a disk without locks, the holder changes ``lock.json`` every few seconds instead. Whether a holder from
another machine is alive is judged by whether that file changes while we look, never by what its clock or ours says.
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

from pipelines.files.masking import masked
from pipelines.files.records import HolderJson
from pipelines.files.store import Store
from uvb.errors import UserError

LOCK = "lock.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # a holder whose file has not changed for so long, as seen here, is dead
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 2.0  # longer than two drivers, started together, take to write one after the other


@contextmanager
def study_lock(store: Store, study: str, say: Callable[[str], None] = lambda line: None) -> Iterator[Callable[[], None]]:
    """Hold a study's folder for this process; `store` is that folder, `study` its name in messages.

    Yields a function to call now and then, which costs nothing. It raises UserError when the lock was lost, which only
    a driver that slept through its heartbeats can meet.

    Args:
        say: takes a line where a person has to wait.

    Raises:
        UserError: another driver has it (the line says which host and process, and since when), or the folder cannot
            be written.
    """
    me = _identity()
    descriptor = _lock_file(store) if store.local_path else None
    try:
        if descriptor is not None and _flocked(descriptor, study, store):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me, indent=1).encode(), 0)  # in place: a rename would lose the lock
            yield lambda: None
        else:
            with _heartbeat_lock(store, study, me, say) as check:
                yield check
    finally:
        if descriptor is not None:
            os.close(descriptor)  # frees the lock. lock.json stays: two drivers could get in while it is removed


def _lock_file(store: Store) -> int:
    try:
        store.path("").mkdir(parents=True, exist_ok=True)
        return os.open(store.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {store.uri}: {error.strerror}; choose another --storage") from error


def _flocked(descriptor: int, study: str, store: Store) -> bool:
    """Take the operating system's lock; False where a network disk has no locks."""
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
                if _read(store).get("token", me["token"]) != me["token"]:
                    lost.set()
                    return
                store.write_json(LOCK, {**me, "beat": count})
            except Exception:  # the store is away for a moment: the next beat tries again
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
    """Write our name, and see that nobody else's replaced it."""
    store.remove(LOCK)  # a dead holder's
    try:
        store.create(LOCK, json.dumps(me, indent=1).encode())
    except FileExistsError:
        raise _refusal(study, _read(store), store) from None
    time.sleep(SETTLE_SECONDS)  # where the store has no conditional put, the last of two writers has the lock
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
    """Where process ids mean the same: a boot of a machine, and in it a container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _alive(store: Store, holder: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Whether a holder still runs: by its process if it runs in this place, else by whether its file changes."""
    if holder["place"] == _place():
        try:  # the start time tells it from a later process of the same number
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
    """Who holds the lock; {} where nobody does, or one who is just writing it."""
    return store.find_json(LOCK, HolderJson)


def _refusal(study: str, holder: dict[str, Any], store: Store) -> UserError:
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on host {holder['host']} since {holder['since']}"
    return UserError(
        f"study {study!r} in {masked(store.uri)} is already run by {who}; wait for it, stop it, or give this one another name"
    )
