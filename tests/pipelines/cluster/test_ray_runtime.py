"""Addresses of clusters, the token, and the death of Ray, without a Ray cluster."""

import os
import socket
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from pipelines import asking
from pipelines.cluster import compat, ray_runtime
from pipelines.cluster.address import CONTROL_SERVICE, asked_cluster
from pipelines.cluster.ray_runtime import private_folder, private_token, require_alive, start_ray
from pipelines.errors import CommandFailed
from uvb.errors import UserError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compat, "running_address", lambda: None)


class Control(grpc.GenericRpcHandler):
    """A control service that refuses calls without a token, as Ray's does."""

    def service(self, details):
        def refuse(_, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "send the token")

        return grpc.unary_unary_rpc_method_handler(refuse) if details.method == CONTROL_SERVICE else None


@contextmanager
def served(*handlers: grpc.GenericRpcHandler):
    """Serve `handlers` by gRPC. Yield the port."""
    server = grpc.server(ThreadPoolExecutor(1), handlers)
    number = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield number
    server.stop(None)


@pytest.fixture
def port():
    """The port of a gRPC server that answers like a cluster."""
    with served(Control()) as number:
        yield number


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            "http://10.0.0.1:8265/",
            "is a dashboard's address; give HOST:6379, or submit the study by `ray job submit",
        ),
        ("http://me:secret@10.0.0.1:8265", r"http://\*\*\*@10\.0\.0\.1:8265 is a dashboard's address"),
        ("127.0.0.1:-1", "an address is HOST:PORT"),
        ("127.0.0.1:0", "an address is HOST:PORT"),
        ("127.0.0.1:70000", "an address is HOST:PORT"),
        ("127.0.0.1", "an address is HOST:PORT"),
        (":6379", "an address is HOST:PORT"),
        ("127.0.0.1:9", r"no Ray cluster answers at 127\.0\.0\.1:9 \(Connection refused\); give another --address"),
        ("auto", "no running Ray cluster was found"),
        ("ray://me:secret@127.0.0.1:9", r"no Ray cluster answers at ray://\*\*\*@127\.0\.0\.1:9 "),
    ],
)
def test_asked_cluster_refuses_in_one_line(wanted: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        asked_cluster(wanted)()
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_asked_cluster_blames_a_stale_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match="unset RAY_ADDRESS, or --address local"):
        asked_cluster("")()
    assert asked_cluster("local")() is None


def test_asked_cluster_heeds_auto_and_local_in_the_variable(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match="no running Ray cluster was found"):
        asked_cluster("")()
    monkeypatch.setattr(compat, "running_address", lambda: f"127.0.0.1:{port}")
    assert asked_cluster("")() == f"127.0.0.1:{port}"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert asked_cluster("")() is None
    assert asked_cluster("auto")() == f"127.0.0.1:{port}"


def test_asked_cluster_accepts_an_address_that_answers(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{port}"
    assert asked_cluster(address)() == address
    assert asked_cluster("")() is None
    monkeypatch.setattr(compat, "running_address", lambda: address)
    assert asked_cluster("")() == asked_cluster("auto")() == address


def test_asked_cluster_refuses_a_port_that_is_not_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would wait for more than a minute and then end the process."""
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        number = silent.getsockname()[1]
        with pytest.raises(UserError, match=rf"no Ray cluster answers at 127\.0\.0\.1:{number} \(something else listens"):
            asked_cluster(f"127.0.0.1:{number}")()
    with served() as number, pytest.raises(UserError, match="something else listens at this port"):  # gRPC, but not Ray's
        asked_cluster(f"127.0.0.1:{number}")()


def test_start_ray_refuses_a_folder_too_long_for_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 60)
    with pytest.raises(UserError, match=r"too long for Ray's sockets: set RAY_TMPDIR to a folder of at most \d\d characters"):
        start_ray(None)


def test_private_folder_opens_only_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as parent:
        monkeypatch.setenv("RAY_TMPDIR", parent)
        folder = Path(private_folder()).parent
        assert (folder.parent, mode(folder)) == (Path(parent), 0o700)
        folder.chmod(0o777)
        private_folder()
        assert mode(folder) == 0o700
        folder.rmdir()
        folder.symlink_to(parent)
        with pytest.raises(UserError, match="belongs to somebody else"):
            private_folder()
        folder.unlink()
        folder.write_text("in the way")
        with pytest.raises(UserError, match="cannot make"):
            private_folder()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_token_is_kept_where_only_its_owner_can_read_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    private_token(create=False)
    assert not token.exists()
    private_token(create=True)
    assert mode(token) == 0o600
    made = token.read_text()
    assert len(made) == 64
    token.chmod(0o644)  # as Ray 2.60.0 leaves it
    private_token(create=True)
    assert (mode(token), token.read_text()) == (0o600, made)


def test_token_is_kept_in_the_environment_if_home_is_not_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    private_token(create=True)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_require_alive_notices_dead_processes_of_a_local_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    require_alive()  # no Ray yet
    node = SimpleNamespace(all_processes={"raylet": [1]}, dead_processes=lambda: [("dashboard", 1)])
    monkeypatch.setattr(compat, "own_node", lambda: node)
    require_alive()
    for kind, said in (("raylet", "raylet"), ("gcs_server", "control server")):
        node.dead_processes = lambda kind=kind: [("dashboard", 1), (kind, 2)]
        with pytest.raises(CommandFailed, match=f"Ray lost its .*{said}.*run the same command again to continue"):
            require_alive()


def test_require_alive_asks_a_cluster_that_was_joined(port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_runtime, "ASK_SECONDS", 0.0)
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(str(tmp_path / "raylet"))
        raylet.listen()
        node = SimpleNamespace(all_processes={}, gcs_address=f"127.0.0.1:{port}", raylet_socket_name=str(tmp_path / "raylet"))
        monkeypatch.setattr(compat, "own_node", lambda: node)
        require_alive()
    with pytest.raises(CommandFailed, match="raylet"):
        require_alive()
    node.gcs_address = "127.0.0.1:9"
    with pytest.raises(CommandFailed, match="control server"):
        require_alive()
