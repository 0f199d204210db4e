"""What a chaos run records, and the traces that it must not leave."""

import collections
import json
import sqlite3
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.chaos_cluster import ChaosError


@dataclass
class Kill:
    """One kill, and the restart that it caused."""

    kind: str
    phase: str
    at: str
    pid: int
    recovery_seconds: float
    evidence: str


def require_no_traces(folder: Path, kills: list[Kill]) -> None:
    """No half-written file, no MLflow run twice or still RUNNING; and the files know how often they were begun."""
    study = folder / "digits"
    left = [str(path.relative_to(study)) for path in study.rglob(".tmp-*")]
    if left:
        raise ChaosError(f"half-written files were left: {left}")
    restarts = sum(json.loads(path.read_text())["restarts"] for path in study.glob("models/*/done.json"))
    wanted = sum(kill.phase == "training" for kill in kills)
    if restarts < wanted:
        raise ChaosError(f"{wanted} kills during training, and the models know of {restarts} restarts")
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("SELECT name, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
    doubled = [name for name, count in collections.Counter(name for name, _ in rows).items() if count > 1]
    if doubled or {status for _, status in rows} != {"FINISHED"}:
        raise ChaosError(f"MLflow's runs: {rows}")


def summary(kills: list[Kill]) -> str:
    """Recovery time after each kind of kill."""
    lines = ["| killed | times | back after, s (median) | worst |", "|---|---:|---:|---:|"]
    for kind in dict.fromkeys(kill.kind for kill in kills):
        seconds = [kill.recovery_seconds for kill in kills if kill.kind == kind]
        lines.append(f"| {kind} | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
    return "\n".join(lines)


def record(kills: list[Kill]) -> None:
    """Rows ``recovery/<what was killed>``: seconds from the kill until training (or the task) was seen to go on."""
    from benchmarks import bench
    from benchmarks.measure import row

    rows = []
    for kind in dict.fromkeys(kill.kind for kill in kills):
        seconds = [kill.recovery_seconds for kill in kills if kill.kind == kind]
        rows.append(row(f"recovery/{kind}", seconds) | {"reference": f"{len(seconds)} kills"})
    bench.write(rows, bench.PLACE)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where it is not there (yet)."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
