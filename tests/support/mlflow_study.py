"""Files of a small study for the tests of MLflow. Its models are untrained, and its numbers are easy to recognize."""

import atexit
import tempfile
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from pipelines.files.store import Store
from pipelines.tracking.connection import open_client
from pipelines.tracking.tracker import Tracker
from uvb import DataRef, Plan, Recipe, RunSpec, Widths, build_model, save_model

START = 1_700_000_000.0


@cache
def empty_mlflow_db() -> Path:
    """An empty MLflow store to copy. It takes seconds to make, so a test session makes it once."""
    folder = tempfile.TemporaryDirectory(prefix="uvb-mlflow-")
    atexit.register(folder.cleanup)
    open_client(f"sqlite:///{folder.name}/mlflow.db")
    return Path(folder.name) / "mlflow.db"


def make_spec(model: str, sigma: float) -> RunSpec:
    widths = Widths((2, 3, 4), 5, 3, 6) if model == "uvb" else Widths((2, 3, 4), 5)
    return RunSpec(DataRef("digits", "c" * 64, (1, 8, 8), 32), model, widths, sigma, "denoise", Recipe("tiny", 4))


def write_curves(store: Store, spec: RunSpec, epochs: int) -> None:
    """Write epochs of two seconds each. The train loss of epoch e is 10 - e."""
    rows = [
        {"epoch": e, "train_loss": 10.0 - e, "test_loss": 11.0 - e, "kl": None, "seconds": 2.0 * e, "time": START + 2 * e}
        for e in range(1, epochs + 1)
    ]
    store.write_json(f"models/{spec.spec_id}/curves.json", {"rows": rows})


def begin(store: Store, spec: RunSpec, epochs: int) -> None:
    store.write_json(f"models/{spec.spec_id}/spec.json", spec.to_json())
    store.write_json(f"models/{spec.spec_id}/plan.json", Plan(workers=2).to_json())
    write_curves(store, spec, epochs)


def complete(store: Store, spec: RunSpec, epochs: int = 4) -> None:
    begin(store, spec, epochs)
    with store.folder(f"models/{spec.spec_id}/model") as folder:
        save_model(build_model(spec), spec, folder, {"parameters": 123})
    store.write_json(f"models/{spec.spec_id}/done.json", {"parameters": 123, "epochs": epochs, "seconds": 2.0 * epochs})


def write_tables(store: Store, specs: list[RunSpec], scratch: Path) -> None:
    """Write tables. The test loss is 3 + σ for UVB and 4 + σ for DEEN. Train losses are 0.5 less.

    The floor is σ, and decoder losses are 99.
    """
    rows = []
    for spec in specs:
        for split in ("train", "test"):
            loss = (3 if spec.model == "uvb" else 4) + spec.sigma - (0.5 if split == "train" else 0.0)
            about = {"spec_id": spec.spec_id, "split": split, "dataset": "digits", "model": spec.model}
            about |= {"sigma": spec.sigma, "activation": "silu", "recipe": "tiny", "widths": str(spec.widths)}
            numbers = {"stderr": 0.1, "floor": spec.sigma if split == "train" else None, "nonparametric": None}
            rows.append({**about, "estimator": "decoder", "loss": 99.0, **numbers})
            rows.append({**about, "estimator": "energy", "loss": loss, **numbers})
    pd.DataFrame(rows).to_parquet(scratch / "losses.parquet")
    store.write_bytes("tables/losses.parquet", (scratch / "losses.parquet").read_bytes())
    quantities = [{"spec_id": specs[0].spec_id, "quantity": "kl_noisy", "value": 7.5, "stderr": 0.2, "paper_value": None}]
    pd.DataFrame(quantities).to_parquet(scratch / "internals.parquet")
    store.write_bytes("tables/internals.parquet", (scratch / "internals.parquet").read_bytes())


def run_ids(store: Store) -> dict[str, str]:
    """spec_id -> run id, from mlflow.json of the study."""
    runs: dict[str, str] = store.read_json("mlflow.json")["runs"]
    return runs


def drain(tracker, most=50):
    for _ in range(most):
        if tracker.sync():
            return
    pytest.fail("sync never came to an end")


def open_tracker(uri, store, warnings=None):
    tracker = Tracker(uri, "uvb", "digits", store, (warnings if warnings is not None else []).append)
    tracker.start()
    return tracker


def snapshot(uri, deleted=False):
    """Run id -> what MLflow stores of the run, in a form that tests can compare."""
    from mlflow.entities import ViewType

    client = open_client(uri)
    experiment = client.get_experiment_by_name("uvb")
    found = {}
    for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL if deleted else ViewType.ACTIVE_ONLY):
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


def logged_models(uri):
    client = open_client(uri)
    return len(client.search_logged_models([client.get_experiment_by_name("uvb").experiment_id]))
