"""Find the Ray cluster to join, and ask whether it answers. Ray is imported only to find a cluster that nobody named."""

import os
import socket
from collections.abc import Callable
from threading import Event

import grpc

from pipelines.asking import Question, Silent
from pipelines.files.masking import masked
from uvb.errors import UserError

# How long a cluster of `ray start` may take to answer. Not long: the user has already waited about 5 s for the import of Ray.
FOUND_SECONDS = 4.0

CONTROL_SERVICE = "/ray.rpc.NodeInfoGcsService/GetClusterId"
ELSE = "something else listens at this port"


def asked_cluster(wanted: str) -> Callable[[], str | None]:
    """Begin to ask whether the cluster to join answers. Return a function that waits, and then returns the cluster's address.

    The address None means: start Ray on this machine.

    Only a cluster made by `ray start` counts as running. Its head may be on this machine or elsewhere. A Ray that another study
    started for itself does not count.

    Args:
        wanted: "local", an address, "auto" for a running cluster, or "" for a running cluster if there is one.

    Raises:
        UserError: at once, if an address is malformed; by the returned function, if no cluster answers.
    """
    variable = os.environ.get("RAY_ADDRESS", "")
    if wanted == "local" or (not wanted and variable == "local"):
        return lambda: None
    if wanted not in ("", "auto"):
        return _asked(wanted, "--address")
    if variable not in ("", "auto", "local"):
        return _asked(variable, "RAY_ADDRESS")
    return lambda: _running(required="auto" in (wanted, variable))


def _running(*, required: bool) -> str | None:
    """The address that `ray start` left on this machine. If there is none, return None, or raise UserError if `required`."""
    from pipelines.cluster import compat

    found = compat.running_address()
    if found:
        return _asked(found, "the cluster of `ray start`,", FOUND_SECONDS)()
    if required:
        raise UserError("address auto: no running Ray cluster was found; start one, or give --address local")
    return None


def _asked(found: str, source: str, seconds: float | None = None) -> Callable[[], str]:
    """Begin to ask whether `found` answers. Return a function that waits, and returns `found`.

    `source` says in error messages where the address comes from, e.g. "--address".
    """
    host, _, port = found.removeprefix("ray://").rpartition(":")
    if found.startswith(("http://", "https://")):
        submit = f"ray job submit --address {masked(found)}"
        raise UserError(f"{source} {masked(found)} is a dashboard's address; give HOST:6379, or submit the study by `{submit}`")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"{source} {masked(found)}: an address is HOST:PORT, such as 10.0.0.1:6379, or auto, or local")
    connected = Event()

    def ask() -> None:  # Ray itself would retry for more than a minute, with a warning each time
        connect(host, int(port), None)
        connected.set()
        if not found.startswith("ray://"):
            _require_ray(f"{host}:{port}")

    question = Question(ask, seconds)

    def answer() -> str:
        try:
            question.answer()
        except (OSError, Silent) as error:
            reason = ELSE if connected.is_set() else (getattr(error, "strerror", None) or error)
            advice = "unset RAY_ADDRESS" if source == "RAY_ADDRESS" else "give another --address"
            raise UserError(f"no Ray cluster answers at {masked(found)} ({reason}); {advice}, or --address local") from error
        return found

    return answer


def connect(host: str, port: int, timeout: float | None) -> None:
    """Raise OSError if nothing accepts a connection there within `timeout` seconds."""
    socket.create_connection((host.strip("[]"), port), timeout=timeout).close()


def _require_ray(address: str) -> None:
    """Raise OSError if the server at `address` has no control service of Ray. If it speaks no gRPC, wait for ever."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):  # only Ray knows the certificates, so do not ask
        return
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        grpc.channel_ready_future(channel).result()
        try:
            channel.unary_unary(CONTROL_SERVICE)(b"")
        except grpc.RpcError as error:  # other errors are fine: a Ray may refuse a call without its token
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise OSError(ELSE) from error
