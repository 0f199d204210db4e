"""The table of benchmarks, and the rows in the table."""

import json
import subprocess
import sys

import pytest

from benchmarks import bench, measure
from tests.support.builders import ROOT, a_row


def test_write_replaces_rows_of_the_same_name_and_keeps_the_others(tmp_path):
    bench.write([a_row("a/x", 1.0), a_row("b/y", 2.0)], tmp_path)
    bench.write([a_row("a/x", 3.0), a_row("c", 1.0, machine="other gpu, torch 1")], tmp_path)
    values = {r["name"]: r["value"] for r in json.loads((tmp_path / "m.json").read_text())}
    assert values == {"a/x": 3.0, "b/y": 2.0}
    assert "| a/x | 3 s |" in (tmp_path / "m.md").read_text()
    assert (tmp_path / "other-gpu.json").exists()


def test_study_rows_hold_wall_time_and_stages(tmp_path):
    (tmp_path / "digits").mkdir()
    made = {"git": f"{'0123456789' * 4}+changes", "time": "then"}
    timings = {"stages": [{"name": "training", "seconds": 40.0}], "total_seconds": 60.0}
    (tmp_path / "digits" / "timings.json").write_text(json.dumps(timings))
    (tmp_path / "digits" / "study.json").write_text(json.dumps({"provenance": made}))
    done = tmp_path / "digits" / "models" / "a" / "done.json"
    done.parent.mkdir(parents=True)
    done.write_text(json.dumps({"seconds": 30.0}))
    rows = bench.study_rows([tmp_path / "digits", tmp_path / "absent"])
    values = {"wall": 60.0, "training": 40.0, "training, steps summed over models": 30.0}
    assert {r["name"]: r["value"] for r in rows} == {f"study/digits/{name}": value for name, value in values.items()}
    assert {(r["commit"], r["when"]) for r in rows} == {("012345678901+", "then")}


@pytest.mark.parametrize(
    ("revision", "text"), [("0123456789", "0123456"), ("0123456789+", "0123456+"), ("012+changes", "012+"), (None, "unknown")]
)
def test_short_keeps_the_mark_of_a_changed_tree(revision: str | None, text: str) -> None:
    assert measure.short(revision, 7) == text


def test_row_holds_medians_and_their_ratio():
    found = measure.row("x", [2.0, 1.0, 9.0], "slow", [4.0, 4.0, 100.0], unit="images/s", work=10)
    assert (found["value"], found["ratio"], found["unit"]) == (5.0, 2.0, "images/s")
    assert set(found) == {"name", "value", "unit", "reference", "ratio", "spread", "machine", "when", "commit"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bench_quick_runs_step_and_workers(tmp_path):
    options = ["--quick", "--only", "step", "cpu.workers", "--study", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.bench", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {
        row["name"]: row for path in (ROOT / "build" / "bench-quick").glob("*.json") for row in json.loads(path.read_text())
    }
    fast = next(row for name, row in rows.items() if name.startswith("step/uvb/digits/cpu-") and row["ratio"])
    slow = rows["step/uvb/digits/cpu-eager-fp32"]
    assert fast["ratio"] == pytest.approx(slow["value"] / fast["value"])
