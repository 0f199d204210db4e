"""Run every benchmark in turn, and write one table of their rows: `make bench`.

    python -m benchmarks.bench [--quick] [--only step exact] [--study outputs/digits]

Each benchmark runs in its own process and prints one JSON row per line. This script writes the rows to
results/speed/<machine>.json and .md. It keeps rows that this run did not measure, with their own time and commit. --quick is a
rehearsal and writes to build/bench-quick/. Run nothing else at the same time.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measure import ROOT, Row, commit, figure, machine, short
from uvb.atomic import replacing
from uvb.words import counted

BENCHMARKS = ("step", "cpu.workers", "sampling", "exact")
PLACE = ROOT / "results" / "speed"


def measured(name: str, quick: bool) -> Iterator[Row]:
    """Run one benchmark and yield the rows that it prints, as they come. Copy its other lines to stdout.

    Raises:
        RuntimeError: the benchmark failed.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"name"'):
                yield json.loads(line)
            else:
                print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"benchmarks.{name} ended with exit code {process.returncode}")


def study_rows(folders: list[Path]) -> list[Row]:
    """Rows of the wall times of finished studies and of their stages, from timings.json."""
    found: list[Row] = []
    for folder in folders:
        path = folder / "timings.json"
        if not path.exists():
            continue
        timings, study = json.loads(path.read_text()), json.loads((folder / "study.json").read_text())
        made = study.get("provenance", {})
        own = {"when": made.get("time"), "commit": short(made.get("git"))}
        total, parts = timings["total_seconds"], {stage["name"]: stage["seconds"] for stage in timings["stages"]}
        found.append(figure(f"study/{folder.name}/wall", total, "s") | own)
        for name, seconds in parts.items():
            found.append(figure(f"study/{folder.name}/{name}", seconds, "s", "wall", seconds / total) | own)
        # Models may train at the same time, so this sum may exceed the wall time of the stage.
        pure = sum(json.loads(done.read_text())["seconds"] for done in folder.glob("models/*/done.json"))
        found.append(figure(f"study/{folder.name}/training, steps summed over models", pure, "s", "wall", pure / total) | own)
    return found


def gpu_rows() -> list[Row]:
    """Rows that benchmarks/gpu brought back from a GPU machine. Each row names its machine."""
    path = ROOT / "results" / "h200" / "bench.json"
    return json.loads(path.read_text()) if path.exists() else []


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """The rows of `new`, and the rows of `old` with other names, sorted by name."""
    rows = {row["name"]: row for row in (*old, *new)}
    return [rows[name] for name in sorted(rows)]


def markdown(rows: list[Row]) -> str:
    """One table for each family of benchmarks. The family is the part of a name before the first slash."""
    lines = ["# Benchmarks", "", f"{rows[0]['machine']}. Written by `make bench`; do not edit.", ""]
    lines += ["`ratio`: for a time or a rate, how many times faster than the reference; for memory, how many times less; for a"]
    lines += ["stage of a study, its share of the whole time. ± is half the distance between the quartiles, divided by the"]
    lines += ["median. For a loss it is the standard error.", ""]
    for family in dict.fromkeys(row["name"].split("/")[0] for row in rows):
        head = "| what | value | ± | ratio | reference | when | commit |"
        lines += [f"## {family}", "", head, "|---|---:|---:|---:|---|---|---|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in rows if row["name"].split("/")[0] == family] + [""]
    return "\n".join(lines)


def cells(row: Row) -> list[str]:
    value = f"{row['value']:.4g} {row['unit']}" if row["unit"] != "bytes" else f"{row['value'] / 2**20:.1f} MiB"
    spread = row["spread"]
    error = ratio = ""
    if spread is not None:
        error = f"{spread:.2g}" if row["unit"] == "loss" else f"{100 * spread:.1f} %"
    if row["ratio"] is not None:
        ratio = f"{row['ratio']:.4f}" if row["unit"] == "loss" else f"{row['ratio']:.2f}"
    return [row["name"], value, error, ratio, row["reference"] or "", row["when"][:16].replace("T", " "), row["commit"]]


def write(rows: list[Row], place: Path) -> None:
    """Write <machine>.json and <machine>.md for each machine in `rows`, and keep the rows that are there already."""
    place.mkdir(parents=True, exist_ok=True)
    for where in dict.fromkeys(row["machine"] for row in rows):
        slug = re.sub("[^a-z0-9]+", "-", where.split(", torch")[0].lower()).strip("-")
        path = place / f"{slug}.json"
        old = json.loads(path.read_text()) if path.exists() else []
        together = merged(old, [row for row in rows if row["machine"] == where])
        for target, text in ((path, json.dumps(together, indent=1)), (path.with_suffix(".md"), markdown(together))):
            with replacing(target, durable=False) as part:
                part.write_text(text)
        print(f"{len(together)} rows in {os.path.relpath(path.with_suffix('.md'))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a rehearsal: small sizes, few repeats")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    studies = [ROOT / "outputs" / "digits"]
    parser.add_argument("--study", type=Path, nargs="+", default=studies, help="finished studies of this machine")
    args = parser.parse_args()
    place = ROOT / "build" / "bench-quick" if args.quick else PLACE
    print(f"{machine()}, commit {commit()}, {counted(torch.get_num_threads(), 'thread')}", flush=True)
    failed: list[str] = []
    for name in args.only:
        started, rows = time.monotonic(), []
        try:
            for row in measured(name, args.quick):
                rows.append(row)
                ratio = f"  {row['ratio']:.2f} x {row['reference']}" if row["ratio"] is not None else ""
                print(f"{row['name']:<48} {row['value']:.4g} {row['unit']}{ratio}", flush=True)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            failed.append(name)
        print(f"[{name}: {time.monotonic() - started:.0f} s]", flush=True)
        if rows:
            write(rows, place)
    if others := [*study_rows(args.study), *gpu_rows()]:
        write(others, place)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
