"""Unpack what gpu_run.py sent back into results/gpu/, and its benchmarks into the table of benchmarks/results/.

    python -m benchmarks.gpu.collect <folder the files of $OUT came back to>

A finished training replaces an unfinished one and is never replaced; of a check, or a row of one kind of GPU, the newest wins.
What needs ArviZ, which that machine lacks, is computed here: how well the walks mix.
"""

import argparse
import json
import shutil
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file

from benchmarks import bench
from benchmarks.gpu.trainings import write_json
from benchmarks.measure import ROOT
from uvb.experiments.walk_jump import statistics


def collect(source: Path, target: Path) -> list[str]:
    """Names of what was taken over from the archives anywhere below `source`."""
    taken: list[str] = []
    target.mkdir(parents=True, exist_ok=True)
    for archive in sorted(source.rglob("results*.tar.gz")):
        with TemporaryDirectory() as scratch:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            for path in sorted(Path(scratch).iterdir()):
                goal = target / path.name
                if path.is_dir():
                    if (goal / "done.json").exists():
                        continue
                    shutil.rmtree(goal, ignore_errors=True)
                    shutil.copytree(path, goal)
                    taken.append(f"{path.name}{'' if (path / 'done.json').exists() else ' (unfinished)'}")
                    fill_mixing(goal)
                else:
                    write_json(goal, merged(path, goal))
                    taken.append(path.name)
    return taken


def merged(new: Path, old: Path) -> Any:
    """The content of `new`, and what `old` has besides: rows by machine and name, checks and failures by name."""
    blob = json.loads(new.read_text())
    before = json.loads(old.read_text()) if old.exists() else None
    if not before:
        return blob
    if isinstance(blob, list):
        rows = {(row["machine"], row["name"]): row for row in (*before, *blob)}
        return list(rows.values())
    if "checks" in blob:
        return blob | {"checks": before["checks"] | blob["checks"]}
    return before | blob


def fill_mixing(folder: Path) -> None:
    """Write chain statistics into ``walk_jump*.json`` where the machine could not tell them."""
    for path in folder.glob("walk_jump*.json"):
        blob, stored = json.loads(path.read_text()), path.with_suffix(".safetensors")
        if not blob.get("variants") or not stored.exists():
            continue
        arrays = load_file(stored)
        stopped = {row["chain"] for row in blob["diverged"]}
        sound = [chain for chain in range(arrays["energy"].shape[1]) if chain not in stopped]
        series = {"scores": arrays["scores"], "scores2": arrays["scores2"], "energy": arrays["energy"][:, sound]}
        told = {"scores": blob["variants"]["jump"], "scores2": blob["variants"]["second_jump"], "energy": blob["energy"]}
        for name, figures in told.items():
            if figures["iat"] is None:
                figures.update(statistics(series[name].float(), blob["steps_per_jump"]))
        write_json(path, blob)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--target", type=Path, default=ROOT / "results" / "gpu")
    args = parser.parse_args()
    taken = collect(args.source, args.target)
    if not taken:
        sys.exit(f"no new results*.tar.gz below {args.source}")
    print("\n".join(taken))
    if args.target == parser.get_default("target"):
        bench.write(bench.gpu_rows(), ROOT / "benchmarks" / "results")


if __name__ == "__main__":
    main()
