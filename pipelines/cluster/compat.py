"""Ray's private names that we need, each with its reason. Look here first when Ray is upgraded (written for 2.60)."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import services
from ray._private.utils import read_ray_address
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

VITAL = ("raylet", "gcs_server")  # without these nothing runs any more; Ray restarts or does without the others


def running_address() -> str | None:
    """The address that `ray start` left on this machine. `ray.init("auto")` reads it too, but raises where there is none."""
    found: str | None = read_ray_address(None)
    return found


def silence() -> None:
    """Keep worker's words off the driver's screen. Ray prints a paragraph for each worker that dies, whatever
    `log_to_driver` and `logging_level` say; we print our own line."""
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


@contextmanager
def this_machine_only() -> Iterator[None]:
    """Let `ray.init(_node_ip_address="127.0.0.1")` mean it, so that every port of a local start, that of the metrics included,
    answers this machine alone. Ray would take the machine's outer address instead, in case other nodes join."""
    before = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = before


def own_node() -> Any:
    """The node this process started or joined; None before. It knows process ids and addresses that no public call tells."""
    return ray._private.worker._global_node


def started_here() -> bool:
    """Whether this process started Ray itself, rather than joining a cluster."""
    node = own_node()
    return node is not None and bool(node.all_processes)


def dead_processes() -> list[str]:
    """Which vital processes, of those that this process started, have died."""
    node = own_node()
    return [kind for kind, _ in node.dead_processes() if kind in VITAL] if node is not None else []


def kill_own_processes() -> None:
    """Kill what this process started of Ray, without a word to them. `ray.shutdown` would wait for the control server."""
    node = own_node()
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=True)


def share(key: str, value: Any) -> None:
    """Put `value` into the control server's memory, for any process of this Ray.

    Not into Tune's `param_space`, which is written to files: an address may hold a password. And not into the object store: a
    driver that owns an object there dies without a word when Ray is ended under it.
    """
    _internal_kv_put(key, pickle.dumps(value), overwrite=True)


def shared(key: str) -> Any:
    """What `share` put there."""
    return pickle.loads(_internal_kv_get(key))


def hand_to_controller(name: str) -> None:
    """Have Ray Train's controller inherit an environment variable; it passes on only those in its own list."""
    ENV_VARS_TO_PROPAGATE.add(name)
