"""The projection into MLflow, on a real SQLite store and (slow) a real server that goes away and comes back."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from uuid import uuid4

import pytest

from pipelines import tracking
from pipelines.figures.style import FAINT, colour
from pipelines.mlflow_runs import check_tracking_uri, default_tracking_uri, open_client, open_experiment
from pipelines.store import Store
from pipelines.tracking import Tracker
from pipelines.tracking_thread import Tracking
from tests.mlflow_study import START, begin, complete, empty_mlflow_db, make_spec, write_curves, write_tables
from uvb.errors import UserError


@pytest.fixture
def uri(tmp_path):
    shutil.copy(empty_mlflow_db(), tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path / "study") if request.param == "local" else f"memory://{uuid4().hex}/study")


def drain(tracker):
    for _ in range(50):
        if tracker.sync():
            return
    pytest.fail("sync never came to an end")


def open_tracker(uri, store, warnings=None, **options):
    tracker = Tracker(uri, "uvb", "digits", store, (warnings if warnings is not None else []).append, **options)
    tracker.start()
    return tracker


def snapshot(uri, deleted=False):
    """Everything MLflow holds of the experiment, as text that two snapshots can be compared by."""
    from mlflow.entities import ViewType

    client = open_client(uri)
    experiment = client.get_experiment_by_name("uvb")
    found = {}
    for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL if deleted else 1):
        keys = [k for k in run.data.metrics if not k.startswith("system/")]
        history = {k: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, k)] for k in keys}
        artifacts = sorted(
            f"{folder}/{a.path}" for folder in ("", "tables", "figures") for a in client.list_artifacts(run.info.run_id, folder)
        )
        found[run.info.run_id] = {
            "name": run.info.run_name, "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
            "history": history, "artifacts": artifacts, "datasets": len(run.inputs.dataset_inputs),
        }  # fmt: skip
    return found


def by_name(uri):
    found = snapshot(uri)
    named = {run["name"]: run for run in found.values()}
    assert len(named) == len(found), "two runs of one name"
    return named


def test_a_later_commands_settings_are_tags(uri, store):
    """MLflow refuses to change a parameter; both commands' settings are to be seen, and the first one's again."""
    spec = make_spec("uvb", 1.0)
    complete(store, spec)
    seen = []
    for epochs, workers in ((4, 2), (8, 1), (4, 2)):
        store.write_json("study.json", {"name": "digits", "epochs": epochs, "sigmas": [0.5, 1.0]})
        plan = {**json.loads(store.read_bytes(f"models/{spec.spec_id}/plan.json")), "workers": workers}
        store.write_json(f"models/{spec.spec_id}/plan.json", plan)
        warnings = []
        tracker = open_tracker(uri, store, warnings)
        drain(tracker)
        assert tracker.finish("FINISHED")
        assert warnings == []
        for name, key, tag in (("digits", "epochs", "now.epochs"), ("uvb σ=1", "plan.workers", "now.plan.workers")):
            run = by_name(uri)[name]
            seen.append((run["params"][key], run["tags"].get(tag)))
            assert not [t for t in run["tags"] if t.startswith("now.") and t != tag]
    assert seen == [("4", None), ("2", None), ("4", "8"), ("2", "1"), ("4", "4"), ("2", "2")]


def test_the_default_store_is_what_a_plain_mlflow_ui_shows(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_the_environments_store_comes_before_the_default(monkeypatch, tmp_path, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    assert Tracker(None, "uvb", "digits", store).tracking_uri == f"sqlite:///{tmp_path}/elsewhere.db"
    assert Tracker("http://asked:1", "uvb", "digits", store).tracking_uri == "http://asked:1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://x")
    with pytest.raises(UserError, match="ftp://x"):
        check_tracking_uri(None)


def test_a_whole_study_is_projected(uri, store, tmp_path):
    specs = [make_spec(m, s) for m in ("uvb", "deen") for s in (0.5, 1.0)]
    for spec in specs:
        complete(store, spec)
    write_tables(store, specs, tmp_path)
    store.write_json("study.json", {"name": "digits", "epochs": 4, "provenance": {"git": "abc", "seed": 0}})
    store.write_bytes("figures/loss_over_sigma.svg", b"<svg/>")
    store.write_bytes("report.html", b"<p>report</p>")
    warnings = []
    tracker = open_tracker(uri, store, warnings)
    drain(tracker)
    assert tracker.finish("FINISHED")
    assert warnings == []

    runs = by_name(uri)
    models = {"uvb σ=0.5", "uvb σ=1", "deen σ=0.5", "deen σ=1"}
    assert runs.keys() == {"digits", *models, "UVB over σ", "DEEN over σ", "floor over σ"}
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
    parent = runs["digits"]
    assert parent["tags"]["provenance.git"] == parent["tags"]["mlflow.source.git.commit"] == "abc"
    assert parent["params"]["epochs"] == "4"
    assert {"/report.html", "figures/figures/loss_over_sigma.svg"} <= set(parent["artifacts"])
    assert {"tables/tables/losses.parquet", "tables/tables/losses.json"} <= set(parent["artifacts"])

    run = runs["uvb σ=1"]
    assert run["params"]["model"] == "uvb"
    assert run["params"]["recipe.epochs"] == "4"
    assert run["params"]["plan.workers"] == "2"
    assert run["params"]["data.checksum"] == "c" * 64
    assert run["tags"]["uvb.spec_id"] == specs[1].spec_id
    assert run["datasets"] == 1
    times = [(e, 10.0 - e, int((START + 2 * e) * 1000)) for e in range(1, 5)]  # the files' own clock
    assert run["history"]["epoch/train_loss"] == times
    assert "epoch/kl" not in run["history"]  # null: not measured
    latest = {k: points[-1][1] for k, points in run["history"].items()}
    assert latest["test_loss"] == 4.0
    assert latest["test_loss_decoder"] == 99.0
    assert latest["test_loss_stderr"] == 0.1
    assert latest["floor"] == 1.0
    assert latest["parameters"] == 123
    assert runs["uvb σ=0.5"]["history"]["kl_noisy"][-1][1] == 7.5

    colours = {n: runs[f"{n} over σ"]["tags"]["mlflow.runColor"] for n in ("UVB", "DEEN", "floor")}
    assert colours == {"UVB": colour("uvb"), "DEEN": colour("deen"), "floor": FAINT}, "the report's, which tells lines apart"
    lines = {n: runs[f"{n} over σ"]["history"] for n in ("UVB", "DEEN", "floor")}
    assert [p[:2] for p in lines["UVB"]["loss_over_sigma"]] == [(50, 3.5), (100, 4.0)]
    assert [p[:2] for p in lines["DEEN"]["loss_over_sigma"]] == [(50, 4.5), (100, 5.0)]
    assert [p[:2] for p in lines["floor"]["train_loss_over_sigma"]] == [(50, 0.5), (100, 1.0)]
    parents = {run["tags"].get("mlflow.parentRunId") for name, run in runs.items() if name != "digits"}
    assert parents == {next(k for k, run in snapshot(uri).items() if run["name"] == "digits")}

    client = open_client(uri)
    tags = client.get_experiment_by_name("uvb").tags
    for view, path in tracker.view_paths.items():
        key = path.split("viewStateShareKey=")[1].split("&")[0]
        shown = json.loads(tags[f"mlflow.sharedViewState.{key}"])
        page = client.search_runs([store.read_json("mlflow.json")["experiment_id"]], shown["searchFilter"])
        assert len(page) == {"models": 4, "sigma": 3}[view]
    assert store.read_json("mlflow.json")["runs"] == tracker.run_ids()
    assert tracker.run_ids().keys() == {spec.spec_id for spec in specs}
    best = {name: client.get_model_version_by_alias(name, "best").run_id for name in ("digits-uvb", "digits-deen")}
    assert best["digits-uvb"] == tracker.run_ids()[specs[1].spec_id]  # at the largest sigma
    table = json.loads(_artifact(client, runs, uri, "tables/losses.json"))
    assert table["columns"][0] == "spec_id"
    assert len(table["data"]) == 16


def _artifact(client, runs, uri, path):
    run_id = next(k for k, run in snapshot(uri).items() if run["name"] == "digits")
    with open(client.download_artifacts(run_id, path)) as file:
        return file.read()


def test_syncing_twice_or_in_a_new_process_changes_nothing(uri, tmp_path):
    store = Store(tmp_path / "study")
    specs = [make_spec("uvb", s) for s in (0.5, 1.0)]
    for spec in specs:
        complete(store, spec)
    write_tables(store, specs, tmp_path)
    tracker = open_tracker(uri, store)
    drain(tracker)
    tracker.finish("FINISHED")
    before, models = snapshot(uri), _logged_models(uri)
    assert models == 2
    for _ in range(2):
        again = open_tracker(uri, store)
        drain(again)
        drain(again)
        assert again.finish("FINISHED")
        assert again.run_ids() == tracker.run_ids()
    assert snapshot(uri, deleted=True) == before
    assert _logged_models(uri) == models
    assert len(open_client(uri).search_model_versions("name = 'digits-uvb'")) == 1


def _logged_models(uri):
    client = open_client(uri)
    return len(client.search_logged_models([client.get_experiment_by_name("uvb").experiment_id]))


def test_a_stopped_study_leaves_nothing_running_and_goes_on_in_the_same_runs(uri, tmp_path):
    store = Store(tmp_path / "study")
    half, whole = make_spec("uvb", 1.0), make_spec("deen", 1.0)
    complete(store, whole)
    begin(store, half, epochs=2)
    store.write_json("models/queued/spec.json", make_spec("uvb", 0.3).to_json())  # planned, not begun: no run yet
    tracker = open_tracker(uri, store)
    drain(tracker)
    runs = by_name(uri)
    assert {n: r["status"] for n, r in runs.items()} == {"digits": "RUNNING", "uvb σ=1": "RUNNING", "deen σ=1": "FINISHED"}
    tracker.close()
    runs = by_name(uri)
    assert {n: r["status"] for n, r in runs.items()} == {"digits": "KILLED", "uvb σ=1": "KILLED", "deen σ=1": "FINISHED"}
    assert not tracker.sync()

    resumed = open_tracker(uri, store)
    write_curves(store, half, 3)
    resumed.sync()
    runs = by_name(uri)
    assert {n: r["status"] for n, r in runs.items()} == {"digits": "RUNNING", "uvb σ=1": "RUNNING", "deen σ=1": "FINISHED"}
    complete(store, half, epochs=4)
    assert resumed.finish("FINISHED")
    runs = by_name(uri)
    assert {r["status"] for r in runs.values()} == {"FINISHED"}
    assert [p[0] for p in runs["uvb σ=1"]["history"]["epoch/train_loss"]] == [1, 2, 3, 4]
    assert resumed.run_ids() == tracker.run_ids()


def test_a_model_that_never_ended_is_marked_failed(uri, tmp_path):
    store = Store(tmp_path / "study")
    begin(store, make_spec("uvb", 1.0), epochs=2)
    tracker = open_tracker(uri, store)
    tracker.finish("FINISHED")
    assert by_name(uri)["uvb σ=1"]["status"] == "FAILED"


def test_a_model_that_failed_says_why_at_once_and_runs_when_it_is_tried_again(uri, tmp_path):
    store, spec = Store(tmp_path / "study"), make_spec("uvb", 1.0)
    begin(store, spec, epochs=2)
    store.write_json(f"models/{spec.spec_id}/failed.json", {"error": "uvb σ=1: training diverged", "time": START + 9})
    tracker = open_tracker(uri, store)
    drain(tracker)
    run = by_name(uri)["uvb σ=1"]
    assert (run["status"], run["tags"]["uvb.error"]) == ("FAILED", "uvb σ=1: training diverged")
    store.remove(f"models/{spec.spec_id}/failed.json")
    drain(tracker)
    assert by_name(uri)["uvb σ=1"]["status"] == "RUNNING"
    tracker.finish("KILLED")


def test_an_earlier_commands_half_trained_models_are_killed_not_failed(uri, tmp_path):
    """Nobody trains them now: neither RUNNING nor this study's failure, whether they are new to MLflow or not."""
    store = Store(tmp_path / "study")
    specs = [make_spec("uvb", s) for s in (0.3, 0.5, 1.0)]
    killed, new, asked = [spec.spec_id for spec in specs]
    store.write_json("study.json", {"specs": [killed]})
    begin(store, specs[0], epochs=2)
    first = open_tracker(uri, store)
    first.sync()
    first._stop_monitor()  # and the process is killed
    assert by_name(uri)["uvb σ=0.3"]["status"] == "RUNNING"
    begin(store, specs[1], epochs=2)
    begin(store, specs[2], epochs=2)
    store.write_json("study.json", {"specs": [asked]})
    for ended, status in ((False, "RUNNING"), (True, "FINISHED")):
        if ended:
            complete(store, specs[2])
        tracker = open_tracker(uri, store)
        drain(tracker)
        runs = {k: snapshot(uri)[run_id]["status"] for k, run_id in tracker.run_ids().items()}
        assert runs == {killed: "KILLED", new: "KILLED", asked: status}
        assert tracker.finish("FINISHED")
        runs = {k: snapshot(uri)[run_id]["status"] for k, run_id in tracker.run_ids().items()}
        assert runs == {killed: "KILLED", new: "KILLED", asked: "FINISHED" if ended else "FAILED"}
    ends = {open_client(uri).get_run(tracker.run_ids()[k]).info.end_time for k in (killed, new)}
    assert ends == {int((START + 4) * 1000)}  # when its last epoch ended


def test_a_training_that_a_search_stopped_is_no_failure(uri, tmp_path):
    store = Store(tmp_path / "study")
    stopped, whole = make_spec("uvb", 1.0), make_spec("deen", 1.0)
    complete(store, whole)
    begin(store, stopped, epochs=2)
    store.write_json(f"models/{stopped.spec_id}/stopped.json", {"time": START + 9})
    tracker = open_tracker(uri, store)
    tracker.finish("FINISHED")
    runs = by_name(uri)
    assert {n: r["status"] for n, r in runs.items()} == {"digits": "FINISHED", "uvb σ=1": "KILLED", "deen σ=1": "FINISHED"}
    assert runs["uvb σ=1"]["tags"]["uvb.ended"] == "stopped early"


def test_a_folder_begun_anew_gets_new_runs_and_ends_those_it_left_running(uri, tmp_path):
    store = Store(tmp_path / "study")
    begin(store, make_spec("uvb", 1.0), epochs=3)
    first = open_tracker(uri, store)
    first.sync()
    first._stop_monitor()  # and the process is killed
    store.remove("")
    begin(store, make_spec("uvb", 1.0), epochs=1)
    second = open_tracker(uri, store)
    second.sync()
    runs = snapshot(uri)
    new = second.run_ids().values()
    assert [len(runs[k]["history"]["epoch/train_loss"]) for k in new] == [1]
    assert {r["status"] for k, r in runs.items() if k in first.run_ids().values()} == {"KILLED"}
    assert sorted(r["status"] for r in runs.values()) == ["KILLED", "KILLED", "RUNNING", "RUNNING"]
    second.close()


def test_a_write_that_fails_midway_is_made_good_without_duplicates(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BACKOFF_SECONDS", (0.0, 0.0))
    store, warnings = Store(tmp_path / "study"), []
    specs = [make_spec("uvb", s) for s in (0.5, 1.0)]
    for spec in specs:
        complete(store, spec)
    write_tables(store, specs, tmp_path)
    tracker = open_tracker(uri, store, warnings)
    tracker._pause = 0.0
    calls = {"made": 0, "failed": 0}

    def flaky(name):
        real = getattr(tracker._client, name)

        def call(*args, **kwargs):
            calls["made"] += 1
            if calls["made"] % 7 == 0:
                calls["failed"] += 1
                if calls["made"] % 2:  # sometimes the request went through and its answer was lost
                    real(*args, **kwargs)
                raise ConnectionError("connection reset")
            return real(*args, **kwargs)

        monkeypatch.setattr(tracker._client, name, call)

    for name in ("log_batch", "create_run", "log_artifact", "set_terminated", "log_inputs", "create_logged_model"):
        flaky(name)
    for _ in range(200):
        if tracker.sync():
            break
    calls["made"] = -10_000
    assert tracker.finish("FINISHED")
    failures = calls["failed"]
    assert failures > 4
    assert 0 < sum("cannot be reached" in w for w in warnings) == sum("is back" in w for w in warnings) <= failures
    runs = by_name(uri)
    assert {r["status"] for r in runs.values()} == {"FINISHED"}
    for name in ("uvb σ=0.5", "uvb σ=1"):
        assert [p[0] for p in runs[name]["history"]["epoch/train_loss"]] == [1, 2, 3, 4]
        assert runs[name]["datasets"] == 1
    assert [p[:2] for p in runs["UVB over σ"]["history"]["loss_over_sigma"]] == [(50, 3.5), (100, 4.0)]
    assert _logged_models(uri) == 2


def test_what_mlflow_refuses_is_told_once_and_stops_nothing(uri, tmp_path):
    store, warnings = Store(tmp_path / "study"), []
    store.write_bytes("tables/broken.parquet", b"not parquet")
    begin(store, make_spec("uvb", 1.0), epochs=2)
    tracker = open_tracker(uri, store, warnings)
    assert tracker.sync()
    assert tracker.sync()
    assert len(warnings) == 1
    assert "tables/broken.parquet" in warnings[0]
    assert len(by_name(uri)["uvb σ=1"]["history"]["epoch/train_loss"]) == 2
    tracker.close()


BROKEN = {"disk": OSError(5, "Input/output error"), "link": OSError("timed out"), "store": UserError("cannot open it")}


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("call", ["stamps", "read_bytes"])
def test_a_study_folder_that_fails_is_not_told_as_mlflow(uri, tmp_path, monkeypatch, call, error):
    monkeypatch.setattr(tracking, "BACKOFF_SECONDS", (0.0, 0.0))
    store, warnings = Store(tmp_path / "study"), []
    begin(store, make_spec("uvb", 1.0), epochs=2)
    tracker = open_tracker(uri, store, warnings)
    drain(tracker)
    runs, works = tracker._runs, getattr(store, call)
    write_curves(store, make_spec("uvb", 1.0), 3)
    monkeypatch.setattr(store, call, _raiser(error))
    for _ in range(2):
        assert not tracker.sync()
    assert tracker._runs is runs, "MLflow itself was fine"
    monkeypatch.setattr(store, call, works)
    drain(tracker)
    assert len(warnings) == 2
    assert warnings[0].startswith(f"the study's folder {store.uri} cannot be read or written (")
    assert warnings[0].endswith("); MLflow will catch up")
    assert warnings[1] == f"the study's folder {store.uri} is back"
    assert len(by_name(uri)["uvb σ=1"]["history"]["epoch/train_loss"]) == 3
    tracker.close()


@pytest.mark.parametrize("status", ["KILLED", "FINISHED"])
def test_a_study_that_ends_while_its_folder_fails_leaves_nothing_running(uri, tmp_path, monkeypatch, status):
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


def test_one_file_that_cannot_be_read_holds_up_nothing_else(uri, tmp_path, monkeypatch):
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
        f"MLflow goes without {bad.rpartition('/')[0]}: the study's folder {store.uri} cannot be read or written",
        f"the study's folder {store.uri} is back",
    ]
    assert len(tracker.run_ids()) == 1
    tracker.close()


def _raiser(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_study_that_ends_before_mlflow_has_started_leaves_nothing_running(uri, tmp_path):
    class Late(Tracker):
        def start(self):
            time.sleep(0.3)  # the thread has not come to it yet
            super().start()

    begun = Tracking(Late(uri, "uvb", "digits", Store(tmp_path / "study")))
    begun.finish("KILLED")
    begun.thread.join()
    assert begun.error is None
    assert {n: r["status"] for n, r in by_name(uri).items()} == {"digits": "KILLED"}


def test_finer_noise_levels_that_come_later_get_charts_of_their_own(uri, tmp_path):
    """A chart in hundredths is not mixed with one in thousandths."""
    store = Store(tmp_path / "study")
    specs = [make_spec("uvb", s) for s in (0.5, 1.0, 0.001, 0.004)]
    for some in (specs[:2], specs):
        write_tables(store, some, tmp_path)
        tracker = open_tracker(uri, store)
        drain(tracker)
        tracker.finish("FINISHED")
    history = by_name(uri)["UVB over σ"]["history"]
    assert history.keys() == {"loss_over_1000_sigma", "train_loss_over_1000_sigma"}
    assert {p[0] for p in history["loss_over_1000_sigma"]} == {1, 4, 500, 1000}
    parent = by_name(uri)["digits"]["history"]
    assert [p[0] for p in parent["loss_over_sigma/UVB"]] == [50, 100]


def test_a_server_that_is_away_from_the_start_is_one_warning(tmp_path):
    store, warnings = Store(tmp_path / "study"), []
    begin(store, make_spec("uvb", 1.0), epochs=2)
    began = time.monotonic()
    tracker = open_tracker("http://127.0.0.1:9", store, warnings)
    assert not tracker.sync()
    tracker.close()
    assert time.monotonic() - began < 15
    assert "cannot be reached" in warnings[0]
    assert "run the same command again" in warnings[1]
    assert len(warnings) == 2
    assert tracker.run_ids() == {}


@pytest.mark.parametrize("bad", ["ftp://nowhere", "sqlite:////proc/no/mlflow.db"])
def test_a_tracking_uri_that_cannot_work_is_one_line(bad, tmp_path):
    with pytest.raises(UserError, match=r"cannot (use|write)") as error:
        Tracker(bad, "uvb", "digits", Store(tmp_path / "study")).start()
    assert "\n" not in str(error.value)


def test_a_deleted_experiment_is_told(uri, tmp_path):
    client = open_client(uri)
    client.delete_experiment(open_experiment(client, uri, "uvb"))
    warnings = []
    tracker = Tracker(uri, "uvb", "digits", Store(tmp_path / "study"), warnings.append)
    with pytest.raises(UserError, match="was deleted; choose another --tracking-uri, or restore it"):
        tracker.start()
    began = time.monotonic()
    assert not tracker.sync()
    assert tracker.finish("FAILED")  # a refusal is no server that is away, to be waited for
    assert time.monotonic() - began < 2
    assert warnings == []


@pytest.fixture
def server(tmp_path):
    """A real MLflow server on this machine only; `start()` and `stop()` as often as one likes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copy(empty_mlflow_db(), tmp_path / "server.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "art")]

    class Server:
        uri = f"http://127.0.0.1:{port}"
        process = None

        def start(self):
            self.process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.DEVNULL)  # fmt: skip
            deadline = time.monotonic() + 240
            while time.monotonic() < deadline:
                try:
                    urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                    return
                except OSError:
                    time.sleep(0.5)
            pytest.fail("the MLflow server did not start within 240 s")

        def stop(self):
            if self.process is not None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                self.process = None

    running = Server()
    yield running
    running.stop()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_goes_on_while_the_server_is_away_and_nothing_is_missing_after(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BACKOFF_SECONDS", (0.5, 1.0))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is slow, not away
    store, warnings = Store(tmp_path / "study"), []
    specs = [make_spec("uvb", s) for s in (0.5, 1.0)]
    server.start()
    begin(store, specs[0], epochs=1)
    tracker = open_tracker(server.uri, store, warnings)
    tracker._pause = 0.5
    drain(tracker)
    server.stop()
    for epoch in (2, 3):
        write_curves(store, specs[0], epoch)
        began = time.monotonic()
        assert not tracker.sync()
        assert time.monotonic() - began < 30  # refused at once; what remains is a busy machine
    complete(store, specs[0])
    complete(store, specs[1])
    write_tables(store, specs, tmp_path)
    server.start()
    deadline = time.monotonic() + 180
    while not tracker.sync() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert tracker.finish("FINISHED")
    assert [w.split(" (")[0].rpartition(" at ")[0] or w for w in warnings][:1] == ["MLflow"]
    assert sum("cannot be reached" in w for w in warnings) == 1
    runs = by_name(server.uri)
    assert {r["status"] for r in runs.values()} == {"FINISHED"}
    for name in ("uvb σ=0.5", "uvb σ=1"):
        assert [p[0] for p in runs[name]["history"]["epoch/train_loss"]] == [1, 2, 3, 4]
    assert "tables/tables/losses.json" in runs["digits"]["artifacts"]
    from pipelines import models

    run_id = tracker.run_ids()[specs[1].spec_id]
    assert models.load(f"runs:/{run_id}/model", server.uri).spec == specs[1]
    assert models.load("models:/digits-uvb@best", server.uri).spec == specs[1]
