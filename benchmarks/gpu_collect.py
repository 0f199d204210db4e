"""Unpack what gpu_run.py sent back into results/gpu/.

    python benchmarks/gpu_collect.py <folder the files of $OUT came back to>

A finished training replaces an unfinished one and is never replaced; the newest checks.json and bench.json win.
"""

import argparse
import shutil
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent


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
                else:
                    shutil.copy(path, goal)
                    taken.append(path.name)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--target", type=Path, default=ROOT / "results" / "gpu")
    args = parser.parse_args()
    taken = collect(args.source, args.target)
    if not taken:
        sys.exit(f"no new results*.tar.gz below {args.source}")
    print("\n".join(taken))


if __name__ == "__main__":
    main()
