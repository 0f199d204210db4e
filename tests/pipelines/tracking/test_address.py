"""A tracking URI that cannot work is refused in one line, before MLflow is imported or anything is written."""

import os
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import Mock

import pytest
import sqlalchemy

from pipelines import asking
from pipelines.files.store import Store
from pipelines.tracking import address
from pipelines.tracking.address import asked_server, check_tracking_uri, mlflow_revisions
from tests.support.mlflow_study import begin, drain, empty_mlflow_db, make_spec, open_tracker, write_curves
from uvb.errors import UserError


def refusal(uri: str | None) -> str:
    """The line of the error that refuses a URI."""
    with pytest.raises(UserError) as caught:
        check_tracking_uri(uri)
    line = str(caught.value)
    assert "\n" not in line
    return line


MALFORMED = {
    "http://[::1": "Invalid IPv6 URL",
    "http://": "it names no host",
    "https://:5000": "it names no host",
    "http://host:99999": "Port out of range",
    "http://host:port": "Port could not be cast",
    "http://host:0": "port 0",
    "postgresql://": "psycopg",
    "postgresql://user:secret@host/db": r"'postgresql://\*\*\*@host/db'.*the Python package psycopg\w* is missing",
    "mysql+pymysql://host/db": "the Python package pymysql is missing",
    "mssql://host/db": "the Python package pyodbc is missing",
    "postgresql+nonesuch://host/db": "it is malformed|nonesuch",
    "postgresql:host": "it is malformed",
    "sqlite://": "it names no file",
    "sqlite:///": "it names no file",
    "sqlite:///:memory:": "it names no file, so nothing would be kept",
    "sqlite:///a%20b.db": "with '%' in its name",
    "sqlite:///a.db?mode=ro": r"with '\?' in its name",
    "ftp://host": "no stores of this kind",
    "databricks": "no stores of this kind",
    "./mlruns": "no stores of this kind",
    "://": "no stores of this kind",
}


@pytest.mark.parametrize("uri", MALFORMED)
def test_check_refuses_uris_that_cannot_work_in_one_line(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(uri)
    assert re.search(MALFORMED[uri], line), line
    assert line.startswith("cannot use ")
    assert "give sqlite:////path/mlflow.db or http://host:port" in line
    assert "secret" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("letter", ["%", "?"])
def test_check_refuses_working_folders_that_mlflow_cannot_address(
    letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"a{letter}20b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert f"a folder or file with '{letter}' in its name" in refusal(None)
    assert sorted(tmp_path.rglob("*")) == [folder]


def test_check_refuses_files_that_are_not_mlflows_and_leaves_them_alone(tmp_path: Path) -> None:
    revisions = mlflow_revisions()
    # A revision of the database maps to the one before it. The newest revision is before no other.
    (newest,) = set(revisions) - set(revisions.values())
    older = revisions[newest]
    shutil.copy(empty_mlflow_db(), tmp_path / "sound.db")
    for name, version in (("newer", "f" * 12), ("older", older)):
        shutil.copy(empty_mlflow_db(), tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as database, database:
            database.execute("UPDATE alembic_version SET version_num = ?", [version])
    with closing(sqlite3.connect(tmp_path / "foreign")) as database, database:
        database.execute("CREATE TABLE songs (title)")
    (tmp_path / "text").write_text("no database at all, but long enough to be one" * 10)
    whole = (tmp_path / "sound.db").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    said = {
        "newer": "made by a newer MLflow",
        "older": "made by an older MLflow; run: mlflow db upgrade sqlite:///",
        "foreign": "another program's database",
        "text": "cannot be read .*not a database.*; move it away",
        "cut": "damaged|malformed",
        "folder": "Is a directory",
    }
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    check_tracking_uri(f"sqlite:///{tmp_path}/older")  # a new file is accepted, because another process may still be making it
    for path in before:
        os.utime(path, (0, 0))
    for name, why in said.items():
        assert re.search(why, refusal(f"sqlite:///{tmp_path}/{name}")), name
    for name in ("sound.db", "empty", "absent"):
        check_tracking_uri(f"sqlite:///{tmp_path}/{name}")
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_check_refuses_databases_that_do_not_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.2)
    refuses = SimpleNamespace(connect=Mock(side_effect=RuntimeError("no such user\nmore of it")))
    silent = SimpleNamespace(connect=lambda: time.sleep(3))
    sound = SimpleNamespace(connect=lambda: SimpleNamespace(close=lambda: None))
    for engine, why in ((refuses, "no such user; give"), (silent, r"it does not answer within 0.2 s")):
        monkeypatch.setattr(sqlalchemy, "create_engine", lambda _, engine=engine: engine)
        assert why in refusal("postgresql://host/db")
    monkeypatch.setattr(sqlalchemy, "create_engine", lambda _: sound)
    check_tracking_uri("postgresql://host/db")


def test_check_says_in_one_line_that_a_database_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "LOCKED_SECONDS", 0.2)
    shutil.copy(empty_mlflow_db(), tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "database is locked); end the program that holds it" in refusal(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def impatient() -> Iterator[None]:
    """MLflow asks SQLite to wait 20 s for a locked file. Here SQLite waits 0.1 s."""

    def shorten(connection: object, cursor: object, statement: str, parameters: object, *_: object) -> tuple[str, object]:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), parameters

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", shorten, retval=True)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", shorten)


def test_tracker_warns_once_without_tracebacks_of_a_database_that_is_locked(
    impatient: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_mlflow_db(), tmp_path / "mlflow.db")
    store, spec, warnings = Store(tmp_path / "study"), make_spec("uvb", 1.0), []
    begin(store, spec, epochs=2)
    tracker = open_tracker(f"sqlite:///{tmp_path}/mlflow.db", store, warnings)
    tracker._pause = 0.0
    drain(tracker)
    capfd.readouterr()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        write_curves(store, spec, 3)
        assert not tracker.sync()
    assert len(warnings) == 1
    assert "cannot be reached" in warnings[0]
    assert "\n" not in warnings[0]
    assert capfd.readouterr() == ("", "")
    tracker._retry_at = 0.0
    drain(tracker)
    assert "is back" in warnings[1]
    tracker.finish("KILLED")


class Health(BaseHTTPRequestHandler):
    """A web server that asks for a password, as a proxy in front of MLflow may do."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        pass


def test_asked_server_takes_any_answer_of_a_web_server() -> None:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.handle_request, daemon=True).start()
        asked_server(f"http://me:pa@ss@127.0.0.1:{server.server_port}/mlflow/")()
    assert Health.asked == ["/mlflow/health"]
    asked_server("sqlite:///x.db")()


def test_asked_server_refuses_silence_and_other_programs_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "SERVER_SECONDS", 0.3)

    def said(uri: str) -> str:
        with pytest.raises(UserError, match=r"^no MLflow answers at http://\*\*\*@") as caught:
            asked_server(uri)()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no answer within 0." in said(f"http://u:p@127.0.0.1:{silent.getsockname()[1]}")
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            with other.accept()[0] as visitor:
                visitor.recv(9999)
                visitor.sendall(b"220 mail\r\n")

        Thread(target=greet, daemon=True).start()
        monkeypatch.setattr(address, "SERVER_SECONDS", 10.0)
        assert "220 mail" in said(f"http://u:p@127.0.0.1:{other.getsockname()[1]}")
    assert "Connection refused" in said("http://u:p@127.0.0.1:9")
    with pytest.raises(UserError, match="it names no host"):
        asked_server("http://")
