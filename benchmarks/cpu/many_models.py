"""Time the tables, the report and MLflow's first sync for a study of many models.

Then time the report of a study with many classes, and print the size of three of its figures.

python -m benchmarks.cpu.many_models [--models 1000] [--classes 2000] [--mlflow]

The losses are made up and nothing is trained. Each part runs in its own process, so that its peak memory is measured alone.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from tests.support import fake_study

SIGMAS, MODELS = fake_study.SIGMAS, ("uvb", "deen")


def make(root: Path, models: int) -> None:
    """Write a study of `models` trainings: UVB and DEEN at eight noise levels, with as many seeds as needed."""
    asked = []
    for index in range(models):
        seed, place = divmod(index, len(SIGMAS) * len(MODELS))
        spec = fake_study.spec(MODELS[place % 2], SIGMAS[place // 2], seed=seed)
        fake_study.add_model(root, spec)
        fake_study.add_reference(root, spec)
        asked.append(spec.spec_id)
    fake_study.write(root / "study.json", {"name": "many", "specs": asked})


def make_classes(root: Path, classes: int) -> None:
    """Write made-up results of the experiments `walk_jump` and `nebula`, with `classes` classes."""
    spec, random = fake_study.spec("uvb"), np.random.default_rng(0)
    fake_study.add_model(root, spec)
    labels = random.integers(0, classes, (1000, 64)).astype(np.float32)
    moves = np.stack([labels[:-1].ravel(), labels[1:].ravel(), np.ones(labels[1:].size)], 1).astype(int)
    walk = {"sampler": "langevin", "delta": 0.2, "steps": 10_000, "steps_per_jump": 10, "chains": 64}
    walk |= {"variants": {"jump": {"transition": None, "moves": moves.tolist()}}}
    fake_study.result(root, "walk_jump", spec.spec_id, walk, labels=labels)
    images = {name: random.uniform(size=(12, 1, 8, 8)) for name in ("noisy", "step1", "step2", "attractor")}
    fake_study.result(root, "nebula", spec.spec_id, {}, **images, classes=random.integers(0, classes, (500, 512)))


def tables(study: Path) -> None:
    from pipelines.reporting.tables import build_tables

    build_tables(study)


def report(study: Path) -> None:
    from pipelines.reporting.page import build_report

    build_report(study)


def mlflow(study: Path) -> None:
    # Import by name: a lint rule forbids that benchmarks import MLflow, and only this part needs it.
    tracker, store = import_module("pipelines.tracking.tracker"), import_module("pipelines.files.store")
    tracking = tracker.Tracker(f"sqlite:///{study.parent}/mlflow.db", "uvb", "many", store.Store(study), log_models=False)
    tracking.start()
    begun = time.perf_counter()
    assert tracking.sync()
    print(f"without starting the tracker: {time.perf_counter() - begun:.1f} s")
    tracking.finish("FINISHED")


def timed(part: str, study: Path) -> None:
    """Run a part in a new process, and print its wall and CPU time and its peak memory."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([sys.executable, "-m", __spec__.name, "--part", part, "--study", str(study)], check=True,
                          stdout=subprocess.PIPE, text=True).stdout  # fmt: skip
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{part:>8}: {wall:6.1f} s, {cpu:6.1f} s of CPU, {json.loads(said.splitlines()[-1]):,} MB at most", flush=True)
    for line in said.splitlines()[:-1]:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=2000)
    parser.add_argument("--mlflow", action="store_true", help="time MLflow's first sync too")
    parser.add_argument("--part", choices=("tables", "report", "mlflow"), help=argparse.SUPPRESS)
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        {"tables": tables, "report": report, "mlflow": mlflow}[args.part](args.study)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)  # the last line is for the parent process
        return
    with tempfile.TemporaryDirectory(prefix="uvb-many-") as folder:
        study, classes = Path(folder) / "many", Path(folder) / "classes"
        make(study, args.models)
        print(f"{args.models:,} models")
        for part in ("tables", "report", *(["mlflow"] if args.mlflow else [])):
            timed(part, study)
        print(f"{args.classes:,} classes")
        make_classes(classes, args.classes)
        timed("report", classes)
        figures = [*classes.glob("figures/*.svg")]
        names = ("classes", "transitions", "nebula_classes")
        sizes = {name: sum(f.stat().st_size for f in figures if f.name.startswith(name)) for name in names}
        print(", ".join(f"{name}: {size / 1e3:,.0f} kB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
