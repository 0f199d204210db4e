"""One study of a name at a time: the second driver is refused, a killed one's lock is free again.

On a local disk the operating system's own lock on ``lock.json`` decides, so it is free the moment its holder dies,
however it dies. On an object store (or a disk without locks) ``lock.json`` carries a heartbeat instead.
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

from pipelines.files.store import Store
from uvb.errors import UserError

LOCK = "lock.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 2.0  # longer than two drivers, started together, take to write one after the other


@contextmanager
def study_lock(store: Store, study: str) -> Iterator[Callable[[], None]]:
    """Hold a study's folder for this process; `store` is that folder, `study` its name in messages.

    Yields a function to call now and then (it costs nothing): it raises UserError when the lock was lost, which only
    a driver that slept through its heartbeats on an object store can meet.

    Raises:
        UserError: another driver has it (the line says on which host, which process, since when), or the folder cannot
            be written.
    """
    me = _identity()
    if store.local_path:
        try:
            store.local_path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(store.local_path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"cannot write {store.uri}: {error.strerror}; choose another --storage") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _refusal(study, _read(store), store) from None
            except OSError:  # a network disk that has no locks
                with _heartbeat_lock(store, study, me) as check:
                    yield check
                return
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me, indent=1).encode(), 0)  # in place: a rename would lose the lock
            yield lambda: None
        finally:
            os.close(descriptor)  # and with it the lock; lock.json stays, since removing it would let two in
    else:
        with _heartbeat_lock(store, study, me) as check:
            yield check


@contextmanager
def _heartbeat_lock(store: Store, study: str, me: dict[str, Any]) -> Iterator[Callable[[], None]]:
    holder = _read(store)
    if holder and _alive(holder):
        raise _refusal(study, holder, store)
    store.write_json(LOCK, me)
    time.sleep(SETTLE_SECONDS)  # object stores have no compare-and-swap here: the last of two writers has it
    holder = _read(store)
    if holder.get("token") != me["token"]:
        raise _refusal(study, holder, store)
    stop, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            try:
                if _read(store).get("token", me["token"]) != me["token"]:
                    lost.set()
                    return
                store.write_json(LOCK, {**me, "beat": time.time()})
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


def _identity() -> dict[str, Any]:
    now = time.time()
    return {
        "host": socket.gethostname(),
        "place": _place(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        "beat": now,
        "token": uuid4().hex,
    }


def _place() -> str:
    """Where process ids mean the same: a boot of a machine, and in it a container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _alive(holder: dict[str, Any]) -> bool:
    """Whether a heartbeat's holder may still run: by its process where we can see it, else by its last beat."""
    if holder["place"] != _place():
        return bool(time.time() - holder["beat"] < STALE_SECONDS)
    try:  # the start time tells it from a later process of the same number
        return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) < 2.0
    except psutil.NoSuchProcess:
        return False


def _read(store: Store) -> dict[str, Any]:
    try:
        holder = store.read_json(LOCK)
    except (FileNotFoundError, ValueError):  # nobody, or one who is just writing it
        return {}
    return holder if isinstance(holder, dict) and _identity().keys() <= holder.keys() else {}


def _refusal(study: str, holder: dict[str, Any], store: Store) -> UserError:
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on host {holder['host']} since {holder['since']}"
    return UserError(
        f"study {study!r} in {store.uri} is already run by {who}; wait for it, stop it, or give this one another name"
    )
