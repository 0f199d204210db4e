"""Choose the address of MLflow's store, and check it before a study writes anything. This module does not import MLflow."""

import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from pipelines.asking import Question, Silent
from pipelines.files.masking import masked
from uvb.errors import UserError, first_line, one_line

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")
LOCKED_SECONDS = 7.0  # how long a SQLite file may stay locked
SERVER_SECONDS = 5.0  # how long a web server may take to answer
BEING_MADE_SECONDS = 30.0  # if a store was written this recently, another process may still be making it
INSTEAD = "give sqlite:////path/mlflow.db or http://host:port"


def default_tracking_uri() -> str:
    """The environment's MLFLOW_TRACKING_URI, else `local_tracking_uri`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_tracking_uri()


def local_tracking_uri() -> str:
    """The store that ``mlflow ui`` without options shows, if a user starts it in this folder."""
    return f"{SQLITE}{Path.cwd() / 'mlflow.db'}"


def sqlite_path(tracking_uri: str) -> Path | None:
    """The absolute path of the file of a ``sqlite:///`` URI; None for a URI of another kind."""
    return Path(tracking_uri.removeprefix(SQLITE)).absolute() if tracking_uri.startswith(SQLITE) else None


def check_tracking_uri(tracking_uri: str | None) -> None:
    """Refuse an address that cannot work. A database must answer now. A web server need not, since it may come back.

    Raises:
        UserError: the URI is malformed or of an unknown kind, its driver is missing, or its file is not MLflow's.
    """
    uri = tracking_uri or default_tracking_uri()
    kind = _kind(uri)
    if kind in ("http", "https"):
        _check_server(uri)
    elif kind == "sqlite":
        _check_sqlite(uri)
    elif kind in DATABASES:
        asked_database(uri)()
    else:
        raise refused(uri, "MLflow has no stores of this kind")


def _kind(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0]


def refused(uri: str, why: str) -> UserError:
    """The error for an address that cannot be used."""
    return UserError(f"cannot use {masked(uri)!r} as MLflow tracking URI: {why}; {INSTEAD}")


def _check_server(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        sound = bool(parts.hostname) and parts.port != 0  # `port` raises if it is not a number up to 65535
    except ValueError as error:
        raise refused(uri, str(error)) from error
    if not sound:
        raise refused(uri, "it names no host, or port 0")


def _check_sqlite(uri: str) -> None:
    file = sqlite_path(uri)
    if file is None or file.name in ("", ":memory:") or uri == SQLITE:
        raise refused(uri, "it names no file, so nothing would be kept")
    if found := re.search("[%?]", uri):  # MLflow reads % as a code and ? as the end of the name
        raise refused(uri, f"a folder or file with {found[0]!r} in its name is not found by MLflow's SQLite")
    existed = file.exists()
    _require_writable(file)
    if not existed:
        file.unlink()
    elif file.stat().st_size:
        _require_ours(file)


def _require_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "ab"):
            pass
    except OSError as error:
        raise UserError(f"cannot write the MLflow store {file}: {error.strerror}; choose another --tracking-uri") from error


def _require_ours(file: Path) -> None:
    """Raise UserError unless `file` is a sound SQLite database that this version of MLflow made."""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=LOCKED_SECONDS)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = [v for (v,) in database.execute("SELECT * FROM alembic_version")] if "alembic_version" in tables else []
            sound = [answer for (answer,) in database.execute("PRAGMA quick_check(1)")]
    except sqlite3.Error as error:
        advice = "end the program that holds it" if "locked" in str(error) else "move it away, or restore it"
        line = f"the MLflow store {file} cannot be read ({error}); {advice}, or choose another --tracking-uri"
        raise UserError(line) from error
    if sound != ["ok"]:
        raise UserError(f"the MLflow store {file} is damaged; move it away, or restore it, or choose another --tracking-uri")
    if tables & {"experiments", "alembic_version"} and time.time() - file.stat().st_mtime < BEING_MADE_SECONDS:
        return  # another process may be making the store; if its version is wrong, MLflow itself refuses it
    if tables and not (versions and "experiments" in tables):
        raise UserError(f"{file} is another program's database, not an MLflow store; choose another --tracking-uri")
    revisions = mlflow_revisions()
    if versions and revisions and versions[0] not in revisions:
        raise UserError(f"the MLflow store {file} was made by a newer MLflow; update MLflow, or choose another --tracking-uri")
    if versions and revisions and versions[0] in revisions.values():  # another revision follows it
        raise UserError(f"the MLflow store {file} was made by an older MLflow; run: mlflow db upgrade {SQLITE}{file}")


def mlflow_revisions() -> dict[str, str]:
    """Revision -> the revision before it, for every database revision that the installed MLflow knows."""
    spec = find_spec("mlflow")
    folders = spec.submodule_search_locations if spec else None
    found = {}
    for path in Path(folders[0], "store", "db_migrations", "versions").glob("*.py") if folders else ():
        names = dict(re.findall(r"^(revision|down_revision) = [\"'](\w+)[\"']", path.read_text(errors="replace"), re.MULTILINE))
        if "revision" in names:
            found[names["revision"]] = names.get("down_revision", "")
    return found


def asked_server(uri: str) -> Callable[[], None]:
    """If `uri` names a web server, begin to ask it. Return a function that waits for the answer; any answer will do.

    This is quicker than MLflow, which would try twice, for 10 s each.

    Raises:
        UserError: at once, if `uri` is malformed; by the returned function, if no web server answers at `uri`.
    """
    if _kind(uri) not in ("http", "https"):
        return lambda: None
    _check_server(uri)
    parts = urlsplit(uri)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/health").geturl()
    question = Question(lambda: urlopen(place, timeout=60).close(), SERVER_SECONDS)

    def answer() -> None:
        try:
            question.answer()
        except HTTPError:  # the server answers, e.g. it asks for a password
            return
        except (Silent, OSError, HTTPException) as error:
            why = error.reason if isinstance(error, URLError) else error
            if isinstance(why, SSLError):  # the server answers, and MLflow may know its certificate
                return
            reason = one_line(why) if isinstance(why, Exception) else why
            line = f"no MLflow answers at {masked(uri)} ({reason}); start it, or give another --tracking-uri"
            raise UserError(line) from error

    return answer


def asked_model(source: str, tracking_uri: str | None) -> Callable[[], None]:
    """If the model `source` is in MLflow, begin to ask its store by `asked_server`. Return a function that waits."""
    if not source.startswith(("runs:/", "models:/")):
        return lambda: None
    return asked_server(tracking_uri or default_tracking_uri())


def asked_database(uri: str) -> Callable[[], None]:
    """If `uri` names a database, begin to ask it. Return a function that waits. MLflow itself would try for minutes.

    Raises:
        UserError: at once, if `uri` is malformed or its driver is missing; by the returned function, if no database answers.
    """
    if _kind(uri) not in DATABASES:
        return lambda: None
    from sqlalchemy import create_engine  # slow to import, and few need it
    from sqlalchemy.exc import ArgumentError

    try:
        engine = create_engine(uri)
    except ModuleNotFoundError as error:
        raise refused(uri, f"the Python package {error.name} is missing; install it") from error
    except (ArgumentError, ValueError) as error:
        raise refused(uri, "it is malformed") from error
    question = Question(lambda: engine.connect().close())

    def answer() -> None:
        try:
            question.answer()
        except Silent as silent:
            raise refused(uri, f"it does not answer within {round(silent.seconds, 1):g} s") from silent
        except Exception as error:  # each driver has its own exceptions
            raise refused(uri, first_line(error)) from error

    return answer
