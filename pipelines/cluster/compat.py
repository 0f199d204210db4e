"""The private names of Ray that we need, each with its reason. Look here first when you upgrade Ray (this is for 2.60)."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import services
from ray._private.utils import read_ray_address
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

VITAL = ("raylet", "gcs_server")  # nothing runs without these; Ray restarts the others, or does without them


def running_address() -> str | None:
    """The address that `ray start` left on this machine, if any. `ray.init("auto")` would raise where there is none."""
    found: str | None = read_ray_address(None)
    return found


def silence() -> None:
    """Keep messages of workers off the driver's screen, where we print our own lines.

    Ray prints a paragraph for each worker that dies, whatever `log_to_driver` and `logging_level` say.
    """
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def this_machine_only() -> Iterator[None]:
    """Make `ray.init(_node_ip_address="127.0.0.1")` bind every port to this machine, including the port of the metrics.

    Ray would take the machine's outer address instead, in case other nodes join.
    """
    before = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = before


def own_node() -> Any:
    """The node that this process started or joined, if any. It knows process ids and addresses that no public call tells."""
    return ray._private.worker._global_node


def started_here() -> bool:
    """Whether this process started Ray, rather than joined a cluster."""
    node = own_node()
    return node is not None and bool(node.all_processes)


def dead_processes() -> list[str]:
    """The vital processes that this process started and that have died."""
    node = own_node()
    return [kind for kind, _ in node.dead_processes() if kind in VITAL] if node is not None else []


def kill_own_processes() -> None:
    """Kill all of Ray that this process started. `ray.shutdown` would first wait for the control server."""
    node = own_node()
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=True)


def share(key: str, value: Any) -> None:
    """Put `value` into the control server's memory, for any process of this Ray.

    Tune's `param_space` is no place for it: Tune writes that to files, and an address may hold a password. The object store is
    no place either: if Ray ends first, a driver that owns an object there dies silently.
    """
    _internal_kv_put(key, pickle.dumps(value), overwrite=True)


def shared(key: str) -> Any:
    """The value that `share` put under `key`."""
    return pickle.loads(_internal_kv_get(key))


def hand_to_controller(name: str) -> None:
    """Let Ray Train's controller inherit an environment variable. It inherits only those in its own list."""
    ENV_VARS_TO_PROPAGATE.add(name)
