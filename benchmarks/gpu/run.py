"""Everything a lent GPU is for, the most valuable first: checks, the step, the headline trainings, and then the rest of each.

Safe to call again and again.

    python3 -m benchmarks.gpu.run --minutes 9 --out $OUT          (docs/gpu.md has the whole procedure)

It needs torch, torchvision, pandas, pyarrow, scikit-learn, safetensors, pillow and, for its reference step, JAX; no Ray, no
MLflow. Images come from .gpu_data/ (gpu_pack.py). It stops by itself before --minutes are over. What is finished goes
to --out at once, as results.tar.gz and summary.json; gpu_collect.py unpacks it into results/gpu/, and what lies there when it
is called again is not done again. A training under way is kept on that machine's own disk (--place) and goes on with the next
call, as long as the machine is the same; on a fresh one it starts over.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tarfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import exact, sampling, stacked
from benchmarks.gpu import warm as gpu_warm  # before torch: it sets how many threads compile
from benchmarks.gpu.checks import run_checks
from benchmarks.gpu.pack import unpack
from benchmarks.gpu.trainings import Budget, in_order_of_value, paper_spec, run_training, write_json
from benchmarks.gpu.variants import FAST, ONE_UPDATE, OTHERS, VARIANT_SECONDS, ceilings, step_rows, variant
from benchmarks.measure import ROOT, DeviceLost, Row, commit, figure, machine, require_alive, row, seconds_side_by_side
from uvb.data import ImageSet, load_dataset
from uvb.models import build_model
from uvb.models.base import Energy
from uvb.plan import Plan
from uvb.spec import RECIPES, RunSpec, Widths

PHASES = ("checks", "steps", "trainings")
TAR_LIMIT = 15 * 2**20  # a file that comes back may have 16 MiB
HEADLINE = 1  # trainings that go before the rest of everything, with the losses alone
BENCHMARKS = {"stacked": stacked, "sampling": sampling, "exact": exact}
WARM_SECONDS = 110.0  # for compiling all at once; what is not done by then is compiled where it is needed


def say(text: str) -> None:
    print(text, flush=True)


def machine_json(device: str) -> dict[str, Any]:
    blob: dict[str, Any] = {
        "machine": machine(),
        "commit": commit(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        blob |= {"gpu": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
        blob |= {"cudnn": torch.backends.cudnn.version(), "multiprocessors": properties.multi_processor_count}
    return blob


def newest(trees: list[Path], name: str) -> Any:
    """The content of the newest file `name` in `trees`, whose newest is the last; None where none has it."""
    found = [tree / name for tree in trees if (tree / name).exists()]
    return json.loads(found[-1].read_text()) if found else None


def warm(place: Path, widths: Widths | None) -> None:
    """Compile what all the rest needs, once a machine; a row of seconds for each way and network."""
    mark, rows = place / "warm.json", []
    if mark.exists():
        return
    started = time.monotonic()
    small = json.dumps(dataclasses.asdict(widths)) if widths else ""
    jobs = (("uvb", "mnist", 8), ("deen", "mnist", 8)) if widths else gpu_warm.JOBS
    for job in gpu_warm.warm_all(WARM_SECONDS, small, jobs=jobs):
        if "error" in job:
            say(f"compiling {job['job']}: {job['error']}")
        else:
            name = f"compile/{job['model']}/{job['data']}/{job['device']}-bf16/batch-{job['batch']}"
            rows.append(figure(name, job["seconds"], "s"))
            say(f"{rows[-1]['name']}: {job['seconds']:.1f} s, others compiling beside it")
    say(f"compiled in {time.monotonic() - started:.0f} s")
    write_json(mark, rows)


def checks(
    images: ImageSet,
    place: Path,
    trees: list[Path],
    device: str,
    budget: Budget,
    widths: Widths | None,
    send: Callable[[], None],
    *,
    first: bool,
) -> None:
    """The checks that no earlier call has done, sent after each; at `first` only those that a training's plan hangs on."""
    found = (newest(trees, "checks.json") or {}).get("checks", {})
    have = [name for name, check in found.items() if check["machine"] == machine()]
    todo = run_checks(images, device, widths=widths, compile=device == "cuda", have=have, left=budget.left, first=first)
    for name, check in todo:
        figures = {k: v for k, v in check.items() if k not in ("ok", "seconds")}
        say(f"{'ok  ' if check['ok'] else 'FAIL'} {name} ({check['seconds']} s) {json.dumps(figures)[:400]}")
        found[name] = check | {"machine": machine(), "commit": commit()}
        write_json(place / "results" / "checks.json", {"machine": machine_json(device), "checks": found})
        send()


def benchmarks(
    data: str | None,
    names: Sequence[str],
    place: Path,
    trees: list[Path],
    device: str,
    budget: Budget,
    widths: Widths | None,
    send: Callable[[], None],
) -> None:
    """Rows of the step on `data`, written as `names` say; without it, of the benchmarks called `names`. Sent after each.

    Earlier ones are kept, and those of this kind of GPU not measured again; nor is what failed on it.
    """
    path, failures = place / "results" / "bench.json", place / "results" / "failures.json"
    rows: list[Row] = newest(trees, "bench.json") or []
    compiled = [row for row in newest([place], "warm.json") or [] if row not in rows]
    broken: dict[str, str] = newest(trees, "failures.json") or {}  # "<machine>: <row's name>" -> why
    have = {row["name"] for row in rows if row["machine"] == machine()}
    have |= {name.removeprefix(f"{machine()}: ") for name in broken}

    def keep(row: Row) -> None:
        rows.append(row)
        ratio = f"  {row['ratio']:.2f}x {row['reference']}" if row["ratio"] else ""
        say(f"{row['name']:<62} {row['value']:.4g} {row['unit']}{ratio}")
        write_json(path, rows)
        send()

    def failed(name: str, why: str) -> None:
        say(f"{name}: {why}")
        broken[f"{machine()}: {name}"] = why
        write_json(failures, broken)

    for each in compiled:
        keep(each)
    peak = ceilings(device) if data else {}
    for name, value in peak.items():
        if f"ceiling/{device}/{name}" not in have:
            keep(figure(f"ceiling/{device}/{name}", value, "B/s" if name == "bytes" else "FLOP/s"))
    batch = 8 if widths else 128
    for model in ("uvb", "deen") if data else ():
        options = {"have": have, "left": budget.left, "failed": failed, "widths": widths, "batch": batch}
        for each in step_rows(model, data, peak, device, names, **options):
            keep(each)
    for name, benchmark in ((name, BENCHMARKS[name]) for name in names if name in BENCHMARKS):
        if budget.left() > VARIANT_SECONDS and not any(had.startswith(f"{name}/") for had in have):
            try:
                count = len(rows)
                for each in benchmark.rows(device, quick=widths is not None):
                    keep(each)
                if len(rows) == count:
                    failed(f"{name}/", "no row came back")
            except Exception as error:  # out of memory, say; the trainings are worth more
                failed(f"{name}/", f"{type(error).__name__}: {error}")
                require_alive(device)


def plan_for(model: str, results: list[Path], device: str) -> Plan:
    """The fastest correct way of this model's step, as measured by `steps`; compiled, without a graph, where it was not."""
    if device == "cpu":
        return Plan(precision="fp32")
    medians: dict[str, float] = {}
    family, right = "deen" if model == "deen" else "uvb", {"graph": False, "compile": True}  # the VAEs are UVB's network
    for folder in results:
        if (folder / "bench.json").exists():
            for row in json.loads((folder / "bench.json").read_text()):
                here = row["machine"] == machine()
                medians |= {n: row["value"] for n in FAST if here and row["name"] == f"step/{family}/mnist/cuda-{n}"}
        if (folder / "checks.json").exists():
            checked = json.loads((folder / "checks.json").read_text())["checks"]
            found = {name: check for name, check in checked.items() if check["machine"] == machine()}
            if f"compiled/{family}" in found:
                right["compile"] = found[f"compiled/{family}"]["ok"]
            right["graph"] = right["compile"] and found.get(f"graphed/{family}", {}).get("ok", False)
    usable = {n: v for n, v in medians.items() if all(ok or way not in n for way, ok in right.items())}
    best = min(usable, key=lambda n: usable[n]) if usable else "compile-bf16" if right["compile"] else "eager-bf16"
    return Plan(device="cuda", precision="bf16", compile="compile" in best, graph="graph" in best)


def loop_share(spec: RunSpec, plan: Plan, results: Path, device: str) -> None:
    """Add a row to bench.json: images/s of the whole training, data, noise and probe included, over those of the bare step."""
    way = f"{'graph-' if plan.graph else ''}{'compile' if plan.compile else 'eager'}-{plan.precision}"
    at = f"{spec.model}/{spec.data.name}/{device}-{way}"
    bench, curves = results / "bench.json", results / spec.spec_id / "curves.json"
    if (
        spec.recipe.optimizer != "adam"
        or spec.model not in ("uvb", "deen")
        or way not in FAST
        or not bench.exists()
        or not curves.exists()
    ):
        return
    rows: list[Row] = json.loads(bench.read_text())
    rates = [epoch["images_per_second"] for epoch in json.loads(curves.read_text())["rows"]]
    if not rates or any(known["name"] == f"loop-share/{at}" and known["machine"] == machine() for known in rows):
        return
    model = build_model(spec).to(device)
    assert isinstance(model, Energy)
    step = variant(way, model, spec.data.shape, device, spec.recipe.batch_size)
    times = seconds_side_by_side({"step": step}, repeats=20, inner=5, device=device)["step"]
    batch = spec.recipe.batch_size
    rows.append(row(f"step/{at}/batch-{batch}", times))
    share = statistics.median(rates) * statistics.median(times) / batch
    rows.append(figure(f"loop-share/{at}", share, "share", f"bare step, batch {batch}"))
    rows.append(figure(f"images/{at}", statistics.median(rates), "images/s"))
    write_json(bench, rows)


def bundle(place: Path, out: Path, tree: Path, started: float, note: str) -> None:
    """What the checkout has not got yet, as one archive (more where one would be too large), and a summary."""
    out.mkdir(parents=True, exist_ok=True)
    results = place / "results"
    folders = [p for p in sorted(results.iterdir()) if p.is_dir() and not (tree / p.name / "done.json").exists()]
    files = [p for p in (results / name for name in ("checks.json", "bench.json", "failures.json")) if p.exists()]
    parts: list[list[Path]] = [files]
    for folder in folders:
        size = sum(f.stat().st_size for part in parts[-1:] for p in part for f in _files(p))
        if size + sum(f.stat().st_size for f in _files(folder)) > TAR_LIMIT:
            parts.append([])
        parts[-1].append(folder)
    for number, part in enumerate(parts[:6]):
        name = out / f"results{number or ''}.tar.gz"
        with tarfile.open(name.with_suffix(".part"), "w:gz") as tar:
            for path in part:
                tar.add(path, arcname=path.name, filter=lambda member: None if member.name.endswith(".part") else member)
        name.with_suffix(".part").replace(name)
    done = {p.name: (p / "done.json").exists() for p in folders}
    write_json(out / "summary.json", {"note": note, "minutes": (time.monotonic() - started) / 60, "finished": done})


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="stop before these are over (a call may take 10)")
    parser.add_argument("--out", type=Path, required=True, help="where the archive goes: $OUT")
    parser.add_argument("--place", type=Path, default=Path("/tmp/uvb_gpu"), help="this machine's own disk")
    parser.add_argument("--tree", type=Path, default=ROOT / "results" / "gpu", help="results of earlier leases")
    parser.add_argument("--phases", default=",".join(PHASES), help=f"which of {', '.join(PHASES)}")
    parser.add_argument(
        "--only", default="", help="only trainings whose 'data model recipe sigma' holds this, e.g. 'mnist uvb paper'"
    )
    parser.add_argument("--again", action="store_true", help="repeat checks and step benchmarks that are already there")
    parser.add_argument("--list", action="store_true", help="print the trainings in order and their state, and stop")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with tiny networks, on the CPU too")
    parser.add_argument("--no-jax", action="store_true")
    args = parser.parse_args(arguments)
    started, budget = time.monotonic(), Budget(args.minutes)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not (args.tiny or args.list):
        sys.exit("no CUDA device here; --tiny rehearses the whole script on the CPU")
    (args.place / "results").mkdir(parents=True, exist_ok=True)
    sets = rehearsal_sets() if args.tiny else unpack(ROOT / ".gpu_data", args.place / "data")
    if not sets:
        sys.exit("no images in .gpu_data/; run benchmarks/gpu/pack.py first, and name .gpu_data in `carry`")
    widths = Widths(conv=(3, 4), hidden=6, latent=5, decoder=7) if args.tiny else None
    specs = rehearsal_specs(sets, widths) if widths else in_order_of_value(sets)
    specs = [spec for spec in specs if args.only in key_of(spec)]
    if args.list:
        for spec in specs:
            state = "finished" if (args.tree / spec.spec_id / "done.json").exists() else "to do"
            print(f"{spec.spec_id}  {state:<9} {key_of(spec)}")
        return
    phases = args.phases.split(",")
    say(f"{machine()}, commit {commit()}, {device}")
    trees = [args.tree, args.place / "results"]  # the newer last
    if args.again:
        trees = trees[1:]
        for name in ("checks.json", "bench.json", "failures.json"):
            (args.place / "results" / name).unlink(missing_ok=True)
        for failed in (args.place / "results").glob("*/failed.json"):
            failed.unlink()

    def send(note: str) -> None:
        bundle(args.place, args.out, args.tree, started, note)

    def check(*, first: bool) -> None:
        if "checks" in phases:
            checks(sets["mnist"], args.place, trees, device, budget, widths, partial(send, "checking"), first=first)
            send("checks done")

    def measure(data: str | None, *names: str) -> None:
        if "steps" in phases:
            chosen = [name for name in names if not (args.no_jax and name.startswith("jax"))]
            if device == "cpu" and data:
                chosen = [name for name in chosen if name.startswith(("eager", "jax"))]
            note = f"measuring {', '.join(chosen)}"
            benchmarks(data, chosen, args.place, trees, device, budget, widths, partial(send, note))

    def train(spec: RunSpec, *, only: str | None = None) -> str | None:
        """Train and evaluate; why the call must end here, or None."""
        folder = args.place / "results" / spec.spec_id
        if (args.tree / spec.spec_id / "done.json").exists():
            return None
        if (folder / "done.json").exists() or (folder / "failed.json").exists():  # it would fail here again
            return None
        if budget.left() < 0:
            return f"time is up before {key_of(spec)}"
        plan = plan_for(spec.model, trees, device)
        say(f"[{(time.monotonic() - started) / 60:.1f} min] {spec.spec_id} {key_of(spec)}: {plan}")
        lost: DeviceLost | None = None
        with warnings.catch_warnings(record=True) as caught:  # a compiler or graph that fell back says so
            warnings.simplefilter("always")
            try:
                finished = run_training(spec, plan, sets[spec.data.name], args.place, budget, say, only=only)
            except DeviceLost as error:  # raised once it is known by what this was trained
                finished, lost = True, error
            except Exception as error:  # out of memory, a damaged state: the other trainings go on
                finished = True
                why = f"{type(error).__name__}: {error}"
                say(f"  FAILED: {why}")
                write_json(folder / "failed.json", {"error": why, "trace": traceback.format_exc()})
        told = list(dict.fromkeys(str(w.message)[:500] for w in caught))
        for text in told:
            say(f"  {text}")
        # of the training; its experiments may come in a later call
        trained_by = newest([folder], "machine.json") or machine_json(device) | {"plan": plan.to_json(), "warnings": []}
        trained_by["warnings"] = list(dict.fromkeys([*trained_by["warnings"], *told]))
        write_json(folder / "machine.json", trained_by)
        send(f"after {key_of(spec)}")
        if lost:
            raise lost
        require_alive(device)
        tried = args.place / f"loop_share-{spec.spec_id}"  # else a device lost there would be lost there again
        if finished and not tried.exists() and not any("failed" in text for text in told):
            tried.touch()
            try:
                loop_share(spec, plan, args.place / "results", device)
            except Exception as error:  # a row fewer
                say(f"  loop-share: {type(error).__name__}: {error}")
                require_alive(device)
        return None if finished else f"time is up in {key_of(spec)}; call again within half a minute, and it goes on"

    def everything() -> str:
        """In order of value; why the call ends."""
        if device == "cuda" or args.tiny:
            warm(args.place, widths)
        check(first=True)
        measure("mnist", FAST[0])
        measure(None, "stacked")
        measure("cifar10", FAST[0])
        trained = specs if "trainings" in phases else []
        ended = None
        for spec in trained[:HEADLINE]:
            ended = ended or train(spec, only="losses")
        if not ended:
            measure("mnist", "jax-bf16", ONE_UPDATE)  # what the headline does not wait for: JAX compiles long
            measure(None, "exact", "sampling")
        for spec in trained[:HEADLINE]:
            ended = ended or train(spec)
        if not ended:
            measure("cifar10", "jax-bf16")
            check(first=False)
            measure("mnist", *FAST[1:], *OTHERS)
        for spec in trained[HEADLINE:]:
            ended = ended or train(spec)
        return ended or "everything is done"

    try:
        note = everything()
    except DeviceLost as error:
        note = f"the GPU answers no more ({error}); call again"
    send(note)
    say(f"{note}; {(time.monotonic() - started) / 60:.1f} minutes")


def key_of(spec: RunSpec) -> str:
    return f"{spec.data.name} {spec.model} {spec.recipe.name} {spec.sigma:g}"


def rehearsal_sets() -> dict[str, ImageSet]:
    """Digits, under the names of the real sets."""
    digits = load_dataset("digits")
    few = {"train": digits.train[:400], "test": digits.test[:60]}
    labels = {"train_labels": digits.train_labels[:400], "test_labels": digits.test_labels[:60]}
    return {"mnist": ImageSet("mnist", **few, **labels, levels=digits.levels)}


def rehearsal_specs(sets: dict[str, ImageSet], widths: Widths) -> list[RunSpec]:
    """Two short trainings."""
    recipe = dataclasses.replace(RECIPES["fast"], epochs=3, batch_size=32)
    specs = [paper_spec(sets["mnist"], model, 1.0, "fast") for model in ("uvb", "deen")]
    return [dataclasses.replace(spec, widths=widths, recipe=recipe) for spec in specs]


if __name__ == "__main__":
    main()
