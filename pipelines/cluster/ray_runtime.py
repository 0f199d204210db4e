"""Start, join, watch and leave Ray."""

import logging
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster import compat
from pipelines.cluster.address import connect
from pipelines.cluster.layout import Capacity, Layout
from pipelines.errors import CommandFailed
from pipelines.files.masking import masked
from pipelines.files.store import Store
from pipelines.study.config import ClusterOptions
from uvb.errors import UserError, first_line
from uvb.machine import usable_cpus
from uvb.plan import Plan, resolve_plan

SOCKET_BYTES = 107  # Linux's limit for the path of a socket
ASK_SECONDS = 5.0  # between two checks that a joined cluster is alive
CONNECT_SECONDS = 5.0  # how long the control server of a joined cluster may take to accept a connection
FIRST_WORKER_SECONDS = 900.0  # how long to wait for the first worker's CPUs, while an autoscaler may start a machine
# The settings of pipelines/__init__.py that Ray needs on all nodes.
CARRIED = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S",
           "RAY_CHDIR_TO_TRIAL_DIR", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "MLFLOW_DISABLE_TELEMETRY")  # fmt: skip

_asked = 0.0  # time of the last check of a joined cluster


def start_ray(address: str | None) -> None:
    """Join the cluster at `address`. If it is None, start a Ray that only this machine can reach.

    Ray's own messages go to its log files.

    Raises:
        UserError: no cluster answers at `address`, or Ray cannot start here.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    compat.silence()
    private_token(create=address is None)
    try:
        if address is None:
            folder = private_folder()
            with compat.this_machine_only():
                # Ray frees the CPUs of a killed trial through the dashboard.
                ray.init(
                    "local",
                    num_cpus=usable_cpus(),
                    include_dashboard=True,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,
                    **quiet,
                )
        else:
            ray.init(address, runtime_env={"env_vars": {name: os.environ[name] for name in CARRIED}}, **quiet)
    except UserError:
        raise
    except Exception as error:  # Ray raises a bare Exception
        if address and isinstance(error, ConnectionError):
            raise UserError(
                f"no Ray cluster answers at {address} ({first_line(error)}); give another --address, or local"
            ) from error
        advice = "fix this, or give the --address of a cluster"
        if "time" in str(error).lower():  # the start timed out
            advice = "on a busy machine, try again when it is quieter"
        raise UserError(f"Ray did not start ({first_line(error)}); {advice}") from error


def private_folder() -> str:
    """Make a folder in RAY_TMPDIR for the files of a local Ray. Only its owner can read it, since the files reveal Ray's ports.

    Raises:
        UserError: the folder's path is too long for sockets, it cannot be made, or it belongs to somebody else.
    """
    parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    folder = Path(parent).absolute() / f"uvb-ray-{os.getuid()}"
    inner = folder / "ray"  # Ray makes its own folder readable by everybody, so put it inside a private one
    longest = f"{inner}/session_2026-01-01_00-00-00_000000_{2**22}/sockets/plasma_store"  # 2**22: Linux's limit for process ids
    over = len(longest.encode()) - SOCKET_BYTES
    if over > 0:
        most = len(parent.encode()) - over
        raise UserError(f"{parent} is too long for Ray's sockets: set RAY_TMPDIR to a folder of at most {most} characters")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise UserError(f"{folder} belongs to somebody else: remove it, or set RAY_TMPDIR to another folder")
        folder.chmod(0o700)
    except OSError as error:
        raise UserError(f"cannot make {folder} for Ray ({error.strerror}): set RAY_TMPDIR to another folder") from error
    return str(inner)


def private_token(*, create: bool) -> None:
    """Make the file of Ray's authentication token readable by its owner alone. Ray 2.60.0 leaves it readable by everybody.

    Args:
        create: make a token if there is none. If the home folder is read-only, put the token into the environment.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token"))
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        if path.exists():
            path.chmod(0o600)
    except OSError:  # the home folder is read-only or absent
        if create and not os.access(path, os.R_OK):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def require_alive() -> None:
    """Raise `CommandFailed` if Ray's control server or its raylet on this machine has died.

    Ray itself would wait for a minute and then kill this process, or wait for ever.
    """
    node = compat.own_node()
    if node is None:
        return
    dead = compat.dead_processes() if compat.started_here() else _silent(node.gcs_address, node.raylet_socket_name)
    if dead:
        what = "its control server" if "gcs_server" in dead else "its process on this machine (the raylet)"
        raise CommandFailed(f"Ray lost {what}; run the same command again to continue from the last checkpoints")


def _silent(address: str, socket_name: str) -> list[str]:
    """The vital process of a joined cluster that accepts no connection: ["gcs_server"], ["raylet"], or [] if both do.

    Check at most every `ASK_SECONDS`. Between two checks return [].
    """
    global _asked
    if time.monotonic() - _asked < ASK_SECONDS:
        return []
    _asked = time.monotonic()
    host, _, port = address.rpartition(":")
    try:
        connect(host, int(port), CONNECT_SECONDS)
    except OSError:
        return ["gcs_server"]
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(socket_name)
        except (ConnectionRefusedError, FileNotFoundError):
            return ["raylet"]
        except OSError:  # the raylet is busy, so it is alive
            pass
    return []


def leave_ray(*, at_once: bool = False) -> None:
    """Disconnect from Ray. If this process started Ray, shut Ray down too.

    Args:
        at_once: kill the Ray processes that this process started, instead of shutting Ray down. The caller must then exit by
            `os._exit`. A broken Ray does not answer a shutdown, and a shutdown would crash a Tune thread that still uses Ray.
            A joined cluster keeps running, and ends the driver's jobs once the driver is gone.
    """
    if at_once:
        logging.disable()  # otherwise Tune's thread would log errors
        compat.kill_own_processes()
    else:
        ray.shutdown()


def cluster_capacity(options: ClusterOptions) -> Capacity:
    """The CPUs and GPUs that the cluster has now, or that the user expects it to grow to (`expect_cpus`, `expect_gpus`)."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in alive)
    cpus, gpus = sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes)
    return Capacity(max(cpus, options.expect_cpus), max(gpus, options.expect_gpus), nodes, cluster=True)


def resolver(layout: Layout, has: Capacity) -> Callable[..., Plan]:
    """Return a function that runs `resolve_plan` where the workers will run: here, or on a node of the cluster.

    The function returned raises UserError if no node can take a worker in time.
    """
    if not has.cluster:
        return resolve_plan

    def resolve_there(**wishes: Any) -> Plan:
        task = ray.remote(resolve_plan).options(num_cpus=layout.cpus_per_worker, num_gpus=layout.gpus_per_worker)
        try:
            plan: Plan = ray.get(task.remote(**wishes), timeout=FIRST_WORKER_SECONDS)
            return plan
        except GetTimeoutError as error:
            raise UserError(
                f"no node could take a worker within {FIRST_WORKER_SECONDS / 60:g} minutes ({layout}), and {has}; "
                "ask for fewer CPUs or GPUs, or see by `ray status` what the autoscaler reports"
            ) from error

    return resolve_there


def require_shared(store: Store, has: Capacity) -> None:
    """Refuse a study's folder on the driver's own disk if other nodes cannot see it.

    Raises:
        UserError: a node does not see study.json, which the driver has just written.
    """
    if not has.cluster or len(has.nodes) < 2 or store.local_path is None:
        return
    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    sees = ray.remote(os.path.exists)
    asked = []
    for node in others:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked.append(sees.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(f"{store.uri}/study.json"))
    cannot_see = 0
    for answer in asked:
        with suppress(RayError):  # do not count a node that is gone or busy
            if not ray.get(answer, timeout=60):
                cannot_see += 1
    if cannot_see:
        raise UserError(
            f"{cannot_see} of {len(has.nodes)} nodes do not see {masked(store.uri)}; "
            "give --storage a folder that all nodes mount, or a URI such as s3://bucket/studies"
        )
