"""Compare the studies of a chaos run, look for traces of the disturbances, and record the run."""

import collections
import json
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.end_to_end.chaos_attack import Blow, read_json
from tests.end_to_end.chaos_cluster import ChaosError
from tests.support.builders import ROOT

RECORD = ROOT / "results" / "chaos" / "runs.json"


def require_same(calm: Path, rough: Path) -> str:
    """Raise ChaosError if tables of two studies differ in any bit. Return the names of the tables."""
    from pipelines.reporting.same import added, differences  # imported late, because it configures Ray

    if wrong := [*differences(calm, rough), *added(calm, rough)]:
        raise ChaosError("\n".join(wrong))
    rows = {path.stem: pq.read_metadata(path).num_rows for path in sorted((calm / "tables").glob("*.parquet"))}
    if empty := [name for name in ("losses", "internals", "curves") if not rows.get(name)]:
        raise ChaosError(f"tables are missing or empty: {', '.join(empty)}")
    return ", ".join(f"{name} ({count} rows)" for name, count in rows.items() if count)


def require_no_traces(folder: Path, blows: list[Blow]) -> None:
    """Raise ChaosError if a half-written file is left, a restart was not counted, or MLflow's runs are wrong.

    The models' files must count at least the restarts that the blows caused. MLflow's runs are wrong if a run exists twice, is
    still RUNNING, or lacks an epoch of its model's curve.
    """
    study = folder / "digits"
    left = [str(path.relative_to(study)) for path in study.rglob(".tmp-*")]
    if left:
        raise ChaosError(f"half-written files were left: {left}")
    restarts = sum(json.loads(path.read_text())["restarts"] for path in study.glob("models/*/done.json"))
    wanted = sum(blow.restarts for blow in blows)
    if restarts < wanted:
        raise ChaosError(f"{wanted} restarts were seen during training, and the models know of {restarts}")
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("SELECT name, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        counted = database.execute("SELECT count(*) FROM metrics WHERE key = 'epoch/test_loss' GROUP BY run_uuid").fetchall()
    drawn = [len(read_json(path)["rows"]) for path in study.glob("models/*/curves.json")]
    if sorted(count for (count,) in counted) != sorted(drawn):
        raise ChaosError(f"MLflow's curves have {counted} epochs, but the models' curves have {drawn}")
    doubled = [name for name, count in collections.Counter(name for name, _ in rows).items() if count > 1]
    if doubled or {status for _, status in rows} != {"FINISHED"}:
        raise ChaosError(f"MLflow's runs: {rows}")


def recoveries(blows: list[Blow]) -> dict[str, dict[str, float]]:
    """For each kind of disturbance: how often it happened, and the seconds until the study went on."""
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    for blow in blows:
        seconds[blow.kind].append(blow.recovery_seconds)
    return {
        kind: {"times": len(all_), "median_seconds": round(statistics.median(all_), 2), "worst_seconds": round(max(all_), 2)}
        for kind, all_ in seconds.items()
    }


def record(blows: list[Blow], about: dict[str, Any], place: Path = RECORD) -> None:
    """Append a run to the record: its time, machine, commit and kinds, and the tables that were equal."""
    from benchmarks.measure import commit, machine

    run = {"when": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "commit": commit(), **about,
           "blows": len(blows), "kinds": recoveries(blows)}  # fmt: skip
    runs = json.loads(place.read_text()) if place.exists() else []
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps([*runs, run], indent=1, ensure_ascii=False) + "\n")
