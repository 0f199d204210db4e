"""The tracker copies a study into a real SQLite store of MLflow."""

import json
import time
from uuid import uuid4

import pytest

from pipelines.files.store import Store
from pipelines.reporting.figures.style import FAINT, colour
from pipelines.tracking.address import check_tracking_uri, default_tracking_uri
from pipelines.tracking.connection import open_client, open_experiment
from pipelines.tracking.tracker import Tracker
from tests.support.mlflow_study import (
    START,
    by_name,
    complete,
    drain,
    logged_models,
    make_spec,
    open_tracker,
    run_ids,
    snapshot,
    write_tables,
)
from uvb.errors import UserError


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path / "study") if request.param == "local" else f"memory://{uuid4().hex}/study")


def test_tracker_tags_a_later_commands_settings(uri, store):
    """MLflow never changes a parameter, so settings that a later command changes become tags."""
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


def test_default_tracking_uri_is_the_default_of_mlflow_ui(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_tracker_prefers_the_environments_store_to_the_default(monkeypatch, tmp_path, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    assert Tracker(None, "uvb", "digits", store).tracking_uri == f"sqlite:///{tmp_path}/elsewhere.db"
    assert Tracker("http://asked:1", "uvb", "digits", store).tracking_uri == "http://asked:1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://x")
    with pytest.raises(UserError, match="ftp://x"):
        check_tracking_uri(None)


def test_tracker_copies_a_whole_study(uri, store, tmp_path):
    specs = [make_spec(m, s) for m in ("uvb", "deen") for s in (0.5, 1.0)]
    for spec in specs:
        complete(store, spec)
    write_tables(store, specs, tmp_path)
    store.write_json("study.json", {"name": "digits", "epochs": 4, "provenance": {"git": "abc", "seed": 0}})
    store.write_bytes("figures/loss_over_sigma.svg", b"<svg/>")
    store.write_bytes(f"figures/jumps_{specs[1].spec_id}.svg", b"<svg/>")
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
    figures = {"figures/figures/loss_over_sigma.svg", "figures/figures/jumps_uvb_sigma_1.svg"}
    assert {"/report.html", *figures} <= set(parent["artifacts"])
    assert {"tables/tables/losses.parquet", "tables/tables/losses.json"} <= set(parent["artifacts"])

    _assert_model_runs(runs, specs)
    _assert_lines_over_sigma(uri, runs)
    client = open_client(uri)
    tags = client.get_experiment_by_name("uvb").tags
    assert tags["mlflow.note.content"].startswith("UVB 4, DEEN 5 (digits, σ = 1) · [Its models in a table](")
    for view, path in tracker.view_paths.items():
        key = path.split("viewStateShareKey=")[1].split("&")[0]
        shown = json.loads(tags[f"mlflow.sharedViewState.{key}"])
        page = client.search_runs([store.read_json("mlflow.json")["experiment_id"]], shown["searchFilter"])
        assert len(page) == {"models": 4, "sigma": 3}[view]
    assert run_ids(store).keys() == {spec.spec_id for spec in specs}
    best = {name: client.get_model_version_by_alias(name, "best").run_id for name in ("digits-uvb", "digits-deen")}
    assert best["digits-uvb"] == run_ids(store)[specs[1].spec_id]  # at the largest sigma
    table = json.loads(_artifact(client, uri, "tables/losses.json"))
    first = ["model", "sigma", "split", "estimator", "loss"]
    assert table["columns"][:5] == first  # a reader sees these columns without scrolling
    assert len(table["data"]) == 16
    assert parent["tags"]["mlflow.source.name"] == "pipelines/full_study.py"
    assert parent["history"]["test_loss/UVB"][-1][1] == 4.0  # at the largest noise level
    assert "| digits | 0.5 | 4.5 | 3.5 |" in parent["tags"]["mlflow.note.content"]


def test_tracker_describes_each_study_once(uri, store, tmp_path):
    """The experiment's description has a paragraph for each study. A study's new numbers replace its old ones."""
    specs = [make_spec("uvb", 0.5)]
    complete(store, specs[0])
    write_tables(store, specs, tmp_path)
    tracker = open_tracker(uri, store)
    drain(tracker)
    specs.append(make_spec("uvb", 1.0))
    complete(store, specs[1])
    write_tables(store, specs, tmp_path)
    drain(tracker)
    assert tracker.finish("FINISHED")
    described = open_client(uri).get_experiment_by_name("uvb").tags["mlflow.note.content"].split("\n\n")
    assert [paragraph.partition(" · ")[0] for paragraph in described] == ["UVB 4 (digits, σ = 1)"]


def _assert_model_runs(runs, specs):
    run = runs["uvb σ=1"]
    assert run["params"]["model"] == "uvb"
    assert run["params"]["recipe.epochs"] == "4"
    assert run["params"]["plan.workers"] == "2"
    assert run["params"]["data.checksum"] == "c" * 64
    assert run["tags"]["uvb.spec_id"] == specs[1].spec_id
    assert run["datasets"] == 2
    times = [(e, 10.0 - e, int((START + 2 * e) * 1000)) for e in range(1, 5)]  # the times in the files
    assert run["history"]["epoch/train_loss"] == times
    assert "epoch/kl" not in run["history"]  # null in the files: not measured
    latest = {k: points[-1][1] for k, points in run["history"].items()}
    assert latest["test_loss"] == 4.0
    assert latest["test_loss_decoder"] == 99.0
    assert latest["test_loss_stderr"] == 0.1
    assert latest["floor"] == 1.0
    assert latest["parameters"] == 123
    assert runs["uvb σ=0.5"]["history"]["kl_noisy"][-1][1] == 7.5


def _assert_lines_over_sigma(uri, runs):
    """Each line of the chart is a child run of the study's run, and has the report's colour."""
    colours = {n: runs[f"{n} over σ"]["tags"]["mlflow.runColor"] for n in ("UVB", "DEEN", "floor")}
    assert colours == {"UVB": colour("uvb"), "DEEN": colour("deen"), "floor": FAINT}, "not the report's colours"
    lines = {n: runs[f"{n} over σ"]["history"] for n in ("UVB", "DEEN", "floor")}
    assert [p[:2] for p in lines["UVB"]["loss_over_sigma"]] == [(50, 3.5), (100, 4.0)]
    assert [p[:2] for p in lines["DEEN"]["loss_over_sigma"]] == [(50, 4.5), (100, 5.0)]
    assert [p[:2] for p in lines["floor"]["train_loss_over_sigma"]] == [(50, 0.5), (100, 1.0)]
    parents = {run["tags"].get("mlflow.parentRunId") for name, run in runs.items() if name != "digits"}
    assert parents == {next(k for k, run in snapshot(uri).items() if run["name"] == "digits")}


def _artifact(client, uri, path):
    run_id = next(k for k, run in snapshot(uri).items() if run["name"] == "digits")
    with open(client.download_artifacts(run_id, path)) as file:
        return file.read()


def test_tracker_changes_nothing_when_it_syncs_again(uri, tmp_path):
    store = Store(tmp_path / "study")
    specs = [make_spec("uvb", s) for s in (0.5, 1.0)]
    for spec in specs:
        complete(store, spec)
    write_tables(store, specs, tmp_path)
    tracker = open_tracker(uri, store)
    drain(tracker)
    tracker.finish("FINISHED")
    before, ids, models = snapshot(uri), run_ids(store), logged_models(uri)
    assert models == 2
    for _ in range(2):
        again = open_tracker(uri, store)
        drain(again)
        drain(again)
        assert again.finish("FINISHED")
        assert run_ids(store) == ids
    assert snapshot(uri, deleted=True) == before
    assert logged_models(uri) == models
    assert len(open_client(uri).search_model_versions("name = 'digits-uvb'")) == 2  # one for each noise level


def test_tracker_charts_finer_noise_levels_by_themselves(uri, tmp_path):
    """A chart never mixes steps in hundredths of σ with steps in thousandths."""
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
    tags = open_client(uri).get_experiment_by_name("uvb").tags
    (view,) = (json.loads(view) for key, view in tags.items() if "sharedViewState.sigma-" in key)
    assert [chart["metricKey"] for chart in view["compareRunCharts"]] == sorted(history)
    assert view["compareRunSections"][0]["name"] == "Loss over 1000 σ"


@pytest.mark.parametrize("bad", ["ftp://nowhere", "sqlite:////proc/no/mlflow.db"])
def test_tracker_refuses_a_uri_that_cannot_work_in_one_line(bad, tmp_path):
    with pytest.raises(UserError, match=r"cannot (use|write)") as error:
        Tracker(bad, "uvb", "digits", Store(tmp_path / "study")).start()
    assert "\n" not in str(error.value)


def test_tracker_refuses_a_deleted_experiment(uri, tmp_path):
    client = open_client(uri)
    client.delete_experiment(open_experiment(client, uri, "uvb"))
    warnings = []
    tracker = Tracker(uri, "uvb", "digits", Store(tmp_path / "study"), warnings.append)
    with pytest.raises(UserError, match="was deleted; choose another --tracking-uri, or restore it"):
        tracker.start()
    began = time.monotonic()
    assert not tracker.sync()
    assert tracker.finish("FAILED")  # MLflow refused, so there is no server to wait for
    assert time.monotonic() - began < 2
    assert warnings == []
