"""Addresses of stores: secrets are masked, silent stores are refused soon, and paths stay inside their folder."""

import json
import time
from pathlib import Path
from unittest.mock import Mock
from uuid import uuid4

import pytest

from pipelines import asking
from pipelines.files import store as store_module
from pipelines.files.masking import masked, masked_json
from pipelines.files.names import inside, plain_name
from pipelines.files.store import MANIFEST, Store, asked_store
from uvb.errors import UserError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        ("http://me:se@cret@host/x", "http://***@host/x"),
        ("postgresql://u:pa/ss@h/db", "postgresql://***@h/db"),
        ("postgresql://u:pa#ss@h/db", "postgresql://***@h/db"),
        ("postgresql://u:pa?ss@h/db", "postgresql://***@h/db"),
        ("postgresql://u:p@/#?ss@h/db", "postgresql://***@h/db"),
        ("http://token@host/x", "http://***@host/x"),
        ("--tracking-uri http://me:secret@host --storage s3://b/c", "--tracking-uri http://***@host --storage s3://b/c"),
        ("s3://b/c?region=eu&secret_key=abc&Token=d", "s3://b/c?region=eu&secret_key=***&Token=***"),
        ("s3://b?X-Amz-Signature=abc", "s3://b?X-Amz-Signature=***"),
        ("mssql://h?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret", "mssql://h?odbc_connect=***"),
        ("sqlite:///studies/me@work/mlflow.db", "sqlite:///studies/me@work/mlflow.db"),
        ("models:/digits-uvb@best", "models:/digits-uvb@best"),
        ("http://127.0.0.1:5000/#/experiments/1", "http://127.0.0.1:5000/#/experiments/1"),
    ],
)
def test_masked_hides_names_passwords_and_options(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_masked_json_reaches_every_string() -> None:
    blob = {"a": ["http://u:p@h", 1, None], "b": {"c": "http://u:p@h"}, "d": True}
    assert masked_json(blob) == {"a": ["http://***@h", 1, None], "b": {"c": "http://***@h"}, "d": True}


def test_store_write_json_stores_no_password(tmp_path: Path) -> None:
    Store(tmp_path).write_json("failed.json", {"error": "lost http://u:pa/ss@h"})
    assert "pa/ss" not in (tmp_path / "failed.json").read_text()


@pytest.mark.parametrize("path", ["../out", "a/../../out", "a\\..\\out", "..", "a/b/.."])
def test_inside_refuses_to_leave_the_folder(path: str) -> None:
    with pytest.raises(UserError, match="leads out of its folder"):
        inside(path)


def test_inside_makes_absolute_names_relative() -> None:
    assert inside("/etc/passwd") == "etc/passwd"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a%20b", "mine's", "a\nb"])
def test_plain_name_refuses_unfit_names(name: str) -> None:
    with pytest.raises(UserError, match="plain name"):
        plain_name(name, "choose one by --study")


@pytest.mark.parametrize("name", ["../outside", "/../outside", "sub/../../outside"])
def test_store_download_follows_no_manifest_out_of_its_folder(name: str, tmp_path: Path) -> None:
    store = Store(f"memory://{uuid4().hex}/study")
    store.write_bytes("model/weights", b"w")
    store.write_bytes(f"model/{MANIFEST}", json.dumps({name: 1}).encode())
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="leads out of its folder"):
        store.download("model", tmp_path / "into")
    assert [p.name for p in tmp_path.rglob("*")] == ["into"]


@pytest.mark.parametrize("work", ["read_bytes", "exists", "list", "remove", "is_complete"])
def test_store_refuses_paths_out_of_its_root(work: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    store = Store(tmp_path / "study")
    with pytest.raises(UserError, match="leads out of its folder"):
        getattr(store, work)("../secret")
    with pytest.raises(UserError, match="leads out of its folder"):
        store.write_bytes("../secret", b"y")
    assert (tmp_path / "secret").read_text() == "x"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://", "the URI names no bucket"),
        ("abfs://", "the URI names no bucket"),
        ("gs://?x=y", "the URI names no bucket"),
        ("://", "the URI names no kind of store"),
        ("://x", "the URI names no kind of store"),
        ("file:/x", "a URI has two slashes"),
        ("~nosuchuser/x", "there is no such user"),
        ("github://", "the URI names no bucket"),
        ("github://x", "cannot open github://x"),
        ("nosuch://x", "cannot open nosuch://x"),
        ("nosuch://me:secret@x", "cannot open nosuch://***@x"),
    ],
)
def test_store_refuses_bad_addresses_in_one_line(address: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Store(address)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_opening_a_silent_store_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(store_module, "from_uri", lambda *_: time.sleep(20))
    started = time.monotonic()
    with pytest.raises(UserError, match=r"s3://bucket does not answer within 0\.3 s"):
        Store("s3://bucket")
    with pytest.raises(UserError, match=r"s3://bucket/digits does not answer within 0\.3 s"):
        asked_store("s3://bucket", "digits")()
    assert time.monotonic() - started < 5


def test_asked_store_lets_a_person_interrupt_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(asking.Question, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        asked_store("memory://x", "digits")()


def test_asked_store_asks_a_remote_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "exists", Mock(side_effect=OSError("no credentials")))
    with pytest.raises(UserError, match="cannot open memory://x/digits: no credentials"):
        asked_store("memory://x", "digits")()


def test_store_of_a_web_server_is_refused_as_read_only() -> None:
    with pytest.raises(UserError, match=r"cannot (write|open) http://\*\*\*@127\.0\.0\.1:9/x") as caught:
        Store("http://u:secret@127.0.0.1:9/x").require_writable()
    assert "\n" not in str(caught.value)


def test_store_create_never_replaces(tmp_path: Path) -> None:
    for store in (Store(tmp_path), Store(f"memory://{uuid4().hex}/study")):
        store.create("lock.json", b"mine")
        with pytest.raises(FileExistsError):
            store.create("lock.json", b"theirs")
        assert store.read_bytes("lock.json") == b"mine"


def test_store_find_json_ignores_damaged_files(tmp_path: Path) -> None:
    from pipelines.files.formats import Curves

    store = Store(tmp_path)
    for text in ("{", "[]", '{"rows": [{}]}', '{"rows": [{"test_loss": "low"}]}', "[" * 100_000):
        store.write_bytes("curves.json", text.encode())
        assert store.find_json("curves.json", Curves) == {}
    store.write_bytes("curves.json", b'{"rows": [{"test_loss": 1, "more": 2}]}')
    assert store.find_json("curves.json", Curves) == {"rows": [{"test_loss": 1, "more": 2}]}


def test_store_download_puts_absolute_names_below_its_folder(tmp_path: Path) -> None:
    store, outside = Store(f"memory://{uuid4().hex}/study"), tmp_path / "outside" / "weights"
    store.write_bytes(f"model{outside}", b"w")
    store.write_bytes(f"model/{MANIFEST}", json.dumps({str(outside): 1}).encode())
    folder = store.download("model", tmp_path / "into")
    assert not outside.parent.exists()
    assert (folder / str(outside).lstrip("/")).read_bytes() == b"w"
