"""How runs end in MLflow: no run stays RUNNING, and each run says how its training ended."""

import time

from pipelines.files.store import Store
from pipelines.tracking.connection import open_client
from pipelines.tracking.thread import Tracking
from pipelines.tracking.tracker import Tracker
from tests.support.mlflow_study import (
    START,
    begin,
    by_name,
    complete,
    drain,
    make_spec,
    open_tracker,
    run_ids,
    snapshot,
    write_curves,
)


def test_tracker_kills_runs_of_a_stopped_study_and_resumes_them(uri, tmp_path):
    store = Store(tmp_path / "study")
    half, whole = make_spec("uvb", 1.0), make_spec("deen", 1.0)
    complete(store, whole)
    begin(store, half, epochs=2)
    store.write_json("models/queued/spec.json", make_spec("uvb", 0.3).to_json())  # planned but not begun, so it has no run
    tracker = open_tracker(uri, store)
    drain(tracker)
    runs = by_name(uri)
    assert {n: r["status"] for n, r in runs.items()} == {"digits": "RUNNING", "uvb σ=1": "RUNNING", "deen σ=1": "FINISHED"}
    tracker.finish("KILLED")
    runs, before = by_name(uri), run_ids(store)
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
    assert run_ids(store) == before


def test_tracker_fails_a_model_that_never_ended(uri, tmp_path):
    store = Store(tmp_path / "study")
    begin(store, make_spec("uvb", 1.0), epochs=2)
    tracker = open_tracker(uri, store)
    tracker.finish("FINISHED")
    assert by_name(uri)["uvb σ=1"]["status"] == "FAILED"


def test_tracker_says_why_a_model_failed_and_runs_it_again(uri, tmp_path):
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


def test_tracker_kills_half_trained_models_of_an_earlier_command(uri, tmp_path):
    """The last command does not train these models, so their runs are neither RUNNING nor FAILED."""
    store = Store(tmp_path / "study")
    specs = [make_spec("uvb", s) for s in (0.3, 0.5, 1.0)]
    killed, new, asked = [spec.spec_id for spec in specs]
    store.write_json("study.json", {"specs": [killed]})
    begin(store, specs[0], epochs=2)
    first = open_tracker(uri, store)
    first.sync()
    first._monitor.stop()  # as if the process had been killed
    assert by_name(uri)["uvb σ=0.3"]["status"] == "RUNNING"
    begin(store, specs[1], epochs=2)
    begin(store, specs[2], epochs=2)
    store.write_json("study.json", {"specs": [asked]})
    for ended, status in ((False, "RUNNING"), (True, "FINISHED")):
        if ended:
            complete(store, specs[2])
        tracker = open_tracker(uri, store)
        drain(tracker)
        runs = {k: snapshot(uri)[run_id]["status"] for k, run_id in run_ids(store).items()}
        assert runs == {killed: "KILLED", new: "KILLED", asked: status}
        assert tracker.finish("FINISHED")
        runs = {k: snapshot(uri)[run_id]["status"] for k, run_id in run_ids(store).items()}
        assert runs == {killed: "KILLED", new: "KILLED", asked: "FINISHED" if ended else "FAILED"}
    ends = {open_client(uri).get_run(run_ids(store)[k]).info.end_time for k in (killed, new)}
    assert ends == {int((START + 4) * 1000)}  # when the last epoch ended


def test_tracker_kills_a_training_that_a_search_stopped(uri, tmp_path):
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


def test_tracker_gives_new_runs_to_a_folder_begun_anew(uri, tmp_path):
    store = Store(tmp_path / "study")
    begin(store, make_spec("uvb", 1.0), epochs=3)
    first = open_tracker(uri, store)
    first.sync()
    first._monitor.stop()  # as if the process had been killed
    old = run_ids(store).values()
    store.remove("")
    begin(store, make_spec("uvb", 1.0), epochs=1)
    second = open_tracker(uri, store)
    second.sync()
    runs = snapshot(uri)
    new = run_ids(store).values()
    assert [len(runs[k]["history"]["epoch/train_loss"]) for k in new] == [1]
    assert {r["status"] for k, r in runs.items() if k in old} == {"KILLED"}
    assert sorted(r["status"] for r in runs.values()) == ["KILLED", "KILLED", "RUNNING", "RUNNING"]
    second.finish("KILLED")


def test_tracking_ends_runs_of_a_study_that_ends_at_once(uri, tmp_path):
    class Late(Tracker):
        def start(self):
            time.sleep(0.3)  # the study ends before the thread gets here
            super().start()

    begun = Tracking(Late(uri, "uvb", "digits", Store(tmp_path / "study")))
    begun.finish("KILLED")
    begun.thread.join()
    assert begun.error is None
    assert {n: r["status"] for n, r in by_name(uri).items()} == {"digits": "KILLED"}
