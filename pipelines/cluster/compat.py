"""All uses of private Ray names, each with its reason. When you upgrade Ray, check this file first (written for Ray 2.60)."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import services
from ray._private.utils import read_ray_address
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

VITAL = ("raylet", "gcs_server")  # Ray cannot run without these two; it restarts the others, or runs without them


def running_address() -> str | None:
    """The address that `ray start` stored on this machine, or None. Without an address `ray.init("auto")` would raise."""
    found: str | None = read_ray_address(None)
    return found


def silence() -> None:
    """Keep messages of workers off the driver's screen. The driver prints its own lines there.

    Ray prints a paragraph for each worker that dies, even if `log_to_driver` and `logging_level` forbid it.
    """
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def this_machine_only() -> Iterator[None]:
    """Make `ray.init(_node_ip_address="127.0.0.1")` open all its ports, even the metrics port, to this machine only.

    Otherwise Ray would replace 127.0.0.1 by the machine's network address, so that other nodes could join.
    """
    before = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = before


def own_node() -> Any:
    """Ray's record of the node that this process started or joined, or None. No public call returns its ids and addresses."""
    return ray._private.worker._global_node


def started_here() -> bool:
    """Whether this process started Ray. If not, it joined a cluster or has no Ray."""
    node = own_node()
    return node is not None and bool(node.all_processes)


def dead_processes() -> list[str]:
    """The vital Ray processes that this process started and that have died."""
    node = own_node()
    return [kind for kind, _ in node.dead_processes() if kind in VITAL] if node is not None else []


def kill_own_processes() -> None:
    """Kill all Ray processes that this process started. `ray.shutdown` would first wait for the control server."""
    node = own_node()
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=True)


def share(key: str, value: Any) -> None:
    """Put `value` into the memory of Ray's control server, where all processes of the cluster can read it.

    Do not use Tune's `param_space` for this: Tune writes it to files, and an address in `value` may hold a password. Do not use
    Ray's object store either: a driver that owns an object there dies silently if Ray ends first.
    """
    _internal_kv_put(key, pickle.dumps(value), overwrite=True)


def shared(key: str) -> Any:
    """The value that `share` put under `key`."""
    return pickle.loads(_internal_kv_get(key))


def hand_to_controller(name: str) -> None:
    """Add `name` to the environment variables that Ray Train's controller inherits from this process."""
    ENV_VARS_TO_PROPAGATE.add(name)
