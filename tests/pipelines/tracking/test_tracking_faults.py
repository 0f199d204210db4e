"""MLflow or the study's folder fails. The tracker tells the user once which of them failed, and MLflow catches up later."""

import shutil
import time

import pytest

from pipelines.files.store import Store
from pipelines.tracking import tracker as tracking
from tests.support.mlflow_server import MlflowServer
from tests.support.mlflow_study import (
    begin,
    by_name,
    complete,
    drain,
    empty_mlflow_db,
    logged_models,
    make_spec,
    open_tracker,
    run_ids,
    write_curves,
    write_tables,
)
from uvb.errors import UserError

BROKEN = {"disk": OSError(5, "Input/output error"), "link": OSError("timed out"), "store": UserError("cannot open it")}


def test_tracker_repeats_a_failed_write_without_duplicates(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BACKOFF_SECONDS", (0.0, 0.0))
    store, warnings = Store(tmp_path / "study"), []
    specs = [make_spec("uvb", s) for s in (0.5, 1.0)]
    for spec in specs:
        complete(store, spec)
    write_tables(store, specs, tmp_path)
    tracker = open_tracker(uri, store, warnings)
    tracker._pause = 0.0
    calls = {"made": 0, "failed": 0}

    def flaky(patch, name):
        real = getattr(tracker._client, name)

        def call(*args, **kwargs):
            calls["made"] += 1
            if calls["made"] % 7 == 0:
                calls["failed"] += 1
                if calls["made"] % 2:  # sometimes the request arrives, and only the answer is lost
                    real(*args, **kwargs)
                raise ConnectionError("connection reset")
            return real(*args, **kwargs)

        patch.setattr(tracker._client, name, call)

    with monkeypatch.context() as patch:
        for name in ("log_batch", "create_run", "log_artifact", "set_terminated", "log_inputs", "create_logged_model"):
            flaky(patch, name)
        drain(tracker, 200)
    assert tracker.finish("FINISHED")
    failures = calls["failed"]
    assert failures > 4
    losses = sum("cannot be reached" in w for w in warnings)
    assert 0 < losses <= failures
    assert sum("is back" in w for w in warnings) == losses
    runs = by_name(uri)
    assert {r["status"] for r in runs.values()} == {"FINISHED"}
    for name in ("uvb σ=0.5", "uvb σ=1"):
        assert [p[0] for p in runs[name]["history"]["epoch/train_loss"]] == [1, 2, 3, 4]
        assert runs[name]["datasets"] == 2
    assert [p[:2] for p in runs["UVB over σ"]["history"]["loss_over_sigma"]] == [(50, 3.5), (100, 4.0)]  # the step is 100 σ
    assert logged_models(uri) == 2


def test_tracker_tells_a_refusal_once_and_goes_on(uri, tmp_path):
    store, warnings = Store(tmp_path / "study"), []
    store.write_bytes("tables/broken.parquet", b"not parquet")
    begin(store, make_spec("uvb", 1.0), epochs=2)
    tracker = open_tracker(uri, store, warnings)
    assert tracker.sync()
    assert tracker.sync()
    assert len(warnings) == 1
    assert "tables/broken.parquet" in warnings[0]
    assert len(by_name(uri)["uvb σ=1"]["history"]["epoch/train_loss"]) == 2
    tracker.finish("KILLED")


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("call", ["stamps", "read_bytes"])
def test_tracker_blames_a_failing_folder_and_not_mlflow(uri, tmp_path, monkeypatch, call, error):
    monkeypatch.setattr(tracking, "BACKOFF_SECONDS", (0.0, 0.0))
    store, warnings = Store(tmp_path / "study"), []
    begin(store, make_spec("uvb", 1.0), epochs=2)
    tracker = open_tracker(uri, store, warnings)
    drain(tracker)
    runs, works = tracker._projection, getattr(store, call)
    write_curves(store, make_spec("uvb", 1.0), 3)
    monkeypatch.setattr(store, call, _raiser(error))
    for _ in range(2):
        assert not tracker.sync()
    assert tracker._projection is runs, "MLflow itself was fine"
    monkeypatch.setattr(store, call, works)
    drain(tracker)
    assert len(warnings) == 2
    assert warnings[0].startswith(f"the study's folder {store.uri} cannot be read or written (")
    assert warnings[0].endswith("); MLflow will catch up")
    assert warnings[1] == f"the study's folder {store.uri} is back"
    assert len(by_name(uri)["uvb σ=1"]["history"]["epoch/train_loss"]) == 3
    tracker.finish("KILLED")


@pytest.mark.parametrize("status", ["KILLED", "FINISHED"])
def test_tracker_ends_runs_while_the_folder_fails(uri, tmp_path, monkeypatch, status):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.0)
    store, warnings = Store(tmp_path / "study"), []
    begin(store, make_spec("uvb", 1.0), epochs=2)
    tracker = open_tracker(uri, store, warnings)
    drain(tracker)
    monkeypatch.setattr(store, "stamps", _raiser(OSError(5, "Input/output error")))
    assert not tracker.sync()
    assert not tracker.finish(status)
    ended = {"digits": status, "uvb σ=1": "KILLED" if status == "KILLED" else "FAILED"}
    assert {n: r["status"] for n, r in by_name(uri).items()} == ended
    assert f"again when the study's folder {store.uri} is reachable" in warnings[-1]


def test_tracker_goes_on_without_one_unreadable_file(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BACKOFF_SECONDS", (0.0, 0.0))
    store, warnings = Store(tmp_path / "study"), []
    specs = [make_spec("uvb", s) for s in (0.5, 1.0)]
    for spec in specs:
        begin(store, spec, epochs=2)
    works, bad = store.read_bytes, f"models/{min(s.spec_id for s in specs)}/curves.json"
    monkeypatch.setattr(
        store, "read_bytes", lambda path: _raiser(PermissionError(13, "denied"))() if path == bad else works(path)
    )
    tracker = open_tracker(uri, store, warnings)
    drain(tracker)
    assert [w.split(" (")[0] for w in warnings] == [
        f"the study's folder {store.uri} cannot be read or written",
        f"MLflow does not get {bad.rpartition('/')[0]}: the study's folder {store.uri} cannot be read or written",
        f"the study's folder {store.uri} is back",
    ]
    assert len(run_ids(store)) == 1
    tracker.finish("KILLED")


def test_tracker_goes_on_without_the_specs_of_another_version(uri, tmp_path):
    """An earlier version of this code may have written a spec.json. A study reads only those of its own models."""
    store, warnings = Store(tmp_path / "study"), []
    first, second = sorted((make_spec("uvb", s) for s in (0.5, 1.0)), key=lambda spec: spec.spec_id)
    begin(store, first, epochs=2)
    complete(store, second)
    for path, spec in ((f"models/{first.spec_id}", first), (f"models/{second.spec_id}/model", second)):
        store.write_json(f"{path}/spec.json", spec.to_json() | {"of_another_version": 1})
    tracker = open_tracker(uri, store, warnings)
    runs = tracker._projection
    drain(tracker)
    assert tracker._projection is runs, "MLflow itself was fine"
    assert len(warnings) == 2
    assert warnings[0].startswith(f"MLflow does not get models/{first.spec_id}: this version cannot read the stored spec")
    assert warnings[1].startswith(f"MLflow does not get logged/{second.spec_id}: ")
    assert list(run_ids(store)) == [second.spec_id]
    tracker.finish("KILLED")


def _raiser(error):
    def fail(*_, **__):
        raise error

    return fail


def test_tracker_warns_once_of_a_server_that_is_away(tmp_path):
    store, warnings = Store(tmp_path / "study"), []
    begin(store, make_spec("uvb", 1.0), epochs=2)
    began = time.monotonic()
    tracker = open_tracker("http://127.0.0.1:9", store, warnings)
    assert not tracker.sync()
    tracker.finish("KILLED")
    assert time.monotonic() - began < 15
    assert "cannot be reached" in warnings[0]
    assert "run the same command again" in warnings[1]
    assert len(warnings) == 2
    assert run_ids(store) == {}


@pytest.fixture
def server(tmp_path):
    shutil.copy(empty_mlflow_db(), tmp_path / "server.db")
    with MlflowServer(tmp_path / "server.db", tmp_path) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tracker_catches_up_with_a_server_that_was_away(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BACKOFF_SECONDS", (0.5, 1.0))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is slow, not away
    store, warnings = Store(tmp_path / "study"), []
    specs = [make_spec("uvb", s) for s in (0.5, 1.0)]
    begin(store, specs[0], epochs=1)
    tracker = open_tracker(server.address, store, warnings)
    tracker._pause = 0.5
    drain(tracker)
    server.kill()
    for epoch in (2, 3):
        write_curves(store, specs[0], epoch)
        began = time.monotonic()
        assert not tracker.sync()
        assert time.monotonic() - began < 30  # a refused connection fails at once; the rest is a busy machine
    complete(store, specs[0])
    complete(store, specs[1])
    write_tables(store, specs, tmp_path)
    server.start()
    deadline = time.monotonic() + 180
    while not tracker.sync() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert tracker.finish("FINISHED")
    assert warnings[0].startswith(f"MLflow at {server.address} cannot be reached (")
    assert sum("cannot be reached" in w for w in warnings) == 1
    runs = by_name(server.address)
    assert {r["status"] for r in runs.values()} == {"FINISHED"}
    for name in ("uvb σ=0.5", "uvb σ=1"):
        assert [p[0] for p in runs[name]["history"]["epoch/train_loss"]] == [1, 2, 3, 4]
    assert "tables/tables/losses.json" in runs["digits"]["artifacts"]
    from pipelines.tracking import model_registry as models

    run_id = run_ids(store)[specs[1].spec_id]
    assert models.load(f"runs:/{run_id}/model", server.address).spec == specs[1]
    assert models.load("models:/digits-uvb@best", server.address).spec == specs[1]
