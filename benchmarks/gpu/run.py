"""Run checks, timings and trainings on a lent GPU, in order of value: checks, the step, the main training, then the rest.

    python3 -m benchmarks.gpu.run --minutes 9 --out $OUT          (docs/gpu.md has the whole procedure)

Call the script again until no work is left. It stops by itself before --minutes are over. It needs only the packages of
`uvb`, without Ray and MLflow, and JAX for the reference step. Images come from .gpu_data/.

Finished work goes to --out at once (results*.tar.gz, summary.json). `benchmarks.gpu.transfer collect` unpacks it into
results/h200/. Later calls do not repeat the work in this folder. An unfinished training stays on the GPU machine's disk
(--place). The next call continues it on the same machine, and starts it over on a fresh one.
"""

import argparse
import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import exact, sampling
from benchmarks.gpu import warm  # sets the number of compiler threads, before torch compiles
from benchmarks.gpu.checks import FIRST, the_checks
from benchmarks.gpu.ledger import Ledger, say, write_json
from benchmarks.gpu.trainings import in_order_of_value, key_of, rehearsal
from benchmarks.gpu.transfer import PACKED, RESULTS, bundle, finished, unpack
from benchmarks.gpu.variants import FAST, JAX_SECONDS, OTHERS, VARIANT_SECONDS, Steps, ceilings, variant
from benchmarks.measure import DeviceLost, Row, commit, figure, machine, require_alive, row, seconds_side_by_side, setting
from pipelines.executor.measuring import Settings, run_here, tasks_for, unfinished
from pipelines.executor.training import Training, lay_out
from pipelines.files.store import Store
from uvb.data import ImageSet
from uvb.experiments import experiment_names, get_experiment
from uvb.measure.losses import EvalConfig
from uvb.models import build_model
from uvb.models.base import Energy
from uvb.plan import Plan
from uvb.spec import RunSpec, Widths
from uvb.training.loop import Progress

TINY = Widths(conv=(3, 4), hidden=6, latent=5, decoder=7)  # the networks of a rehearsal
PHASES = ("checks", "steps", "trainings")
HEADLINE = 1  # how many trainings run early. Their losses are measured at once, the rest after the first benchmarks
SAVE_SECONDS = 120.0  # between checkpoints on the machine's disk
SAY_SECONDS = 15.0
RESERVE_SECONDS = 20.0  # kept for saving and bundling when the time is up


class Lease:
    """One call of this script on a lent machine."""

    def __init__(self, args: argparse.Namespace, sets: dict[str, ImageSet], specs: Sequence[RunSpec]) -> None:
        self.args, self.sets = args, sets
        self.widths = TINY if args.tiny else None
        self.started = time.monotonic()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.study = args.place / "study"
        self.study.mkdir(parents=True, exist_ok=True)
        self.store = Store(self.study)
        self.ledger = Ledger([self.study] if args.again else [args.tree, self.study], self.device, self.left, self.send)
        self.specs = [spec for spec in specs if args.only in key_of(spec)]
        self.said = 0.0

    def left(self) -> float:
        """Seconds until work must stop."""
        return self.started + 60 * self.args.minutes - RESERVE_SECONDS - time.monotonic()

    def everything(self) -> str:
        """Do all work in order of value. Return why the call ends."""
        if self.device == "cuda" or self.widths:
            self.compile_all()
        self.check(first=True)
        self.measure("mnist", FAST[0])
        self.measure("cifar10", FAST[0])
        specs = self.specs if "trainings" in self.args.phases else []
        for spec in specs[:HEADLINE]:
            if ended := self.train(spec, only=("losses",)):
                return ended
        self.measure("mnist", "jax-bf16")  # after the main training, because JAX compiles for long
        if "steps" in self.args.phases:
            for name, benchmark in (("exact", exact), ("sampling", sampling)):
                run = partial(benchmark.rows, self.device, quick=self.widths is not None)
                self.ledger.measure(f"{name}/", run, VARIANT_SECONDS)
        for spec in specs[:HEADLINE]:
            if ended := self.train(spec):
                return ended
        self.measure("cifar10", "jax-bf16")
        self.check(first=False)
        self.measure("mnist", *FAST[1:], *OTHERS)
        for spec in specs[HEADLINE:]:
            if ended := self.train(spec):
                return ended
        return "everything is done"

    def compile_all(self) -> None:
        """Compile in parallel what the other work needs, once on each machine."""
        mark = self.args.place / "compiled"
        if mark.exists():
            return
        mark.touch()
        small = json.dumps(dataclasses.asdict(self.widths)) if self.widths else ""
        jobs = (("uvb", "mnist", 8), ("deen", "mnist", 8)) if self.widths else warm.JOBS
        for found in warm.rows(small, jobs):
            self.ledger.measure(found["name"], partial(iter, [found]))

    def check(self, *, first: bool) -> None:
        """Run the checks. With `first` run only the checks that decide on the plan of a training."""
        if "checks" in self.args.phases:
            batch = 32 if self.widths else 128
            options = {"widths": self.widths, "batch": batch, "compile": self.device == "cuda"}
            for name, run in the_checks(self.sets["mnist"], self.device, **options):
                if not first or name.startswith(FIRST):
                    self.ledger.check(name, run)

    def measure(self, data: str, *names: str) -> None:
        """Time these variants of the step on a data set's shape."""
        if "steps" not in self.args.phases:
            return
        left_out = ("jax",) if self.args.no_jax else ()
        left_out += ("graph", "compile") if self.device == "cpu" else ()
        names = tuple(name for name in names if not name.startswith(left_out))
        peak = ceilings(self.device)
        for name, value in peak.items():
            rows = [figure(f"ceiling/{self.device}/{name}", value, "B/s" if name == "bytes" else "FLOP/s")]
            self.ledger.measure(rows[0]["name"], partial(iter, rows))
        if not names:
            return
        for model in ("uvb", "deen"):
            steps = Steps(model, data, self.device, peak, self.widths, 8 if self.widths else 128)
            self.ledger.measure(f"step/{steps.at}-eager-fp32", steps.reference, VARIANT_SECONDS)
            for name in names:
                needed = JAX_SECONDS if name.startswith("jax") else VARIANT_SECONDS
                self.ledger.measure(f"step/{steps.at}-{name}", partial(steps.rows, name), needed)

    def train(self, spec: RunSpec, only: Sequence[str] = ()) -> str | None:
        """Train a model and run its experiments, or those in `only`. Return why the call must end here, or None."""
        model = f"models/{spec.spec_id}"
        if finished(self.args.tree, spec.spec_id) or finished(self.study, spec.spec_id):
            return None
        if self.store.exists(f"{model}/failed.json"):  # the training would fail again
            return None
        if self.left() < 0:
            return f"time is up before {key_of(spec)}"
        lay_out(self.store, self.sets[spec.data.name], {spec: plan_for(spec.model, self.ledger, self.device)})
        plan = Plan.from_json(self.store.read_json(f"{model}/plan.json"))
        say(f"[{(time.monotonic() - self.started) / 60:.1f} min] {spec.spec_id} {key_of(spec)}: {plan}")
        training = Training(spec, plan, self.store, SAVE_SECONDS, watch=self.watch)
        try:
            ended = training.run()["outcome"]
        except Exception as error:  # such as out of memory: record it, so that the other trainings go on
            ended = "failed"
            self.store.write_json(f"{model}/failed.json", {"error": f"{type(error).__name__}: {error}"})
        for note in training.notes:  # such as: the compiler or the graph failed
            say(f"  {note}")
        if ended == "failed":
            why = self.store.read_json(f"{model}/failed.json")["error"]
            say(f"  FAILED: {why}")
            if "diverged" in why:  # divergence is a result, so the training counts as finished
                self.store.write_json(f"{model}/measured.json", {"tasks": []})
        whole = ended == "done" and self.experiments(spec, only)
        self.send(f"after {key_of(spec)}")
        require_alive(self.device)
        if whole and not training.notes and spec.recipe.optimizer == "adam" and spec.model in ("uvb", "deen"):
            name = f"loop-share/{spec.model}/{spec.data.name}/{self.device}-{way_of(plan)}"
            self.ledger.measure(name, partial(loop_share, spec, plan, self.store, self.device), VARIANT_SECONDS)
        if whole or ended == "failed":
            return None
        return f"time is up in {key_of(spec)}; call again within half a minute to continue it"

    def watch(self, progress: Progress) -> bool:
        """Print the progress of the training. Return whether the time is up, which asks for a pause."""
        if time.monotonic() - self.said > SAY_SECONDS or progress.metrics:
            self.said = time.monotonic()
            say(f"  epoch {progress.epoch}, loss {progress.loss:.3f}, {progress.images_per_second:.0f} images/s")
        return self.left() < 0

    def experiments(self, spec: RunSpec, only: Sequence[str]) -> bool:
        """Measure in fp32 without TF32. Return False if the time is up.

        At σ = 1 run all experiments, at another σ the default experiments that run for every model.
        """
        names = experiment_names(default_only=spec.sigma != 1.0)
        names = [name for name in names if spec.sigma == 1.0 or get_experiment(name).where == "every"]
        settings = Settings(EvalConfig(), Plan(device=self.device))
        tasks = tasks_for([spec], only or names)
        with setting(torch.backends.cudnn, "allow_tf32", False):
            for task, error in run_here(unfinished(tasks, self.store, settings), self.store, settings, self.left):
                say(f"  {task.name}: {error or 'done'}")
                if task.name == "losses" and not error:
                    for found in self.store.read_json(f"{task.folder}/result.json")["rows"]:
                        say(f"    {found['estimator']}, {found['split']}: {found['loss']:.3f} ± {found['stderr']:.3f}")
                require_alive(self.device)
        left = [task for task in unfinished(tasks, self.store, settings) if not self.store.exists(f"{task.folder}/failed.json")]
        if not left and not only:
            self.store.write_json(f"models/{spec.spec_id}/measured.json", {"tasks": [task.name for task in tasks]})
        return not left

    def send(self, note: str) -> None:
        """Write to --out the work that the checkout does not have yet."""
        here = sorted(path.name for path in (self.study / "models").glob("*"))
        new = [spec_id for spec_id in here if not finished(self.args.tree, spec_id)]
        bundle(self.study, self.args.out, new)
        done = {spec_id: finished(self.study, spec_id) for spec_id in new}
        summary = {"note": note, "minutes": (time.monotonic() - self.started) / 60, "finished": done}
        write_json(self.args.out / "summary.json", summary)


def plan_for(model: str, ledger: Ledger, device: str) -> Plan:
    """The fastest plan that was timed on this machine and passed its checks.

    If no plan was timed, the plan compiles and has no graph. It is eager if the check of compilation failed.
    """
    if device == "cpu":
        return Plan(precision="fp32")
    family = "deen" if model == "deen" else "uvb"  # the VAEs have the network of UVB
    checks = {name: check["ok"] for name, check in ledger.checks.items() if check["machine"] == machine()}
    compiles = checks.get(f"compiled/{family}", True)
    graphs = compiles and checks.get(f"graphed/{family}", False)
    here = {row["name"]: row["value"] for row in ledger.rows if row["machine"] == machine()}
    usable = [name for name in FAST if (compiles or "compile" not in name) and (graphs or "graph" not in name)]
    seconds = {name: here.get(f"step/{family}/mnist/cuda-{name}", math.inf) for name in usable}
    best = min(usable, key=seconds.__getitem__)
    if seconds[best] == math.inf:  # none was timed
        best = "compile-bf16" if compiles else "eager-bf16"
    return Plan(device="cuda", precision="bf16", compile="compile" in best, graph="graph" in best)


def way_of(plan: Plan) -> str:
    return f"{'graph-' if plan.graph else ''}{'compile' if plan.compile else 'eager'}-{plan.precision}"


def loop_share(spec: RunSpec, plan: Plan, store: Store, device: str) -> Iterator[Row]:
    """The speed of a training, with data, noise and the losses after each epoch, as a share of the speed of the bare step."""
    at = f"{spec.model}/{spec.data.name}/{device}-{way_of(plan)}"
    rates = [epoch["images_per_s"] for epoch in store.read_json(f"models/{spec.spec_id}/curves.json")["rows"]]
    model = build_model(spec).to(device)
    assert isinstance(model, Energy)
    step = variant(way_of(plan), model, spec.data.shape, device, spec.recipe.batch_size)
    times = seconds_side_by_side({"step": step}, repeats=20, inner=5, device=device)["step"]
    share = statistics.median(rates) * statistics.median(times) / spec.recipe.batch_size
    yield row(f"step/{at}/batch-{spec.recipe.batch_size}", times)
    yield figure(f"loop-share/{at}", share, "share", f"bare step, batch {spec.recipe.batch_size}")
    yield figure(f"images/{at}", statistics.median(rates), "images/s")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="stop before these minutes are over (a call may take 10)")
    parser.add_argument("--out", type=Path, required=True, help="where the archive goes: $OUT")
    parser.add_argument("--place", type=Path, default=Path("/tmp/uvb_gpu"), help="this machine's own disk")
    parser.add_argument("--tree", type=Path, default=RESULTS, help="results of earlier leases")
    parser.add_argument("--phases", type=lambda text: text.split(","), default=PHASES, help=f"which of {', '.join(PHASES)}")
    parser.add_argument("--only", default="", help="only trainings with this text in 'data model recipe sigma'")
    parser.add_argument("--again", action="store_true", help="repeat checks, step benchmarks and trainings that failed")
    parser.add_argument("--list", action="store_true", help="print the trainings in order and their state, and stop")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with tiny networks, on the CPU too")
    parser.add_argument("--no-jax", action="store_true")
    args = parser.parse_args(arguments)
    if args.tiny:
        sets, specs = rehearsal(TINY)
    else:
        sets = unpack(PACKED, args.place / "data")
        specs = in_order_of_value(sets)
    if not sets:
        sys.exit("no images in .gpu_data/: run `python -m benchmarks.gpu.transfer pack` first, and carry .gpu_data")
    if args.again:
        for old in [*args.place.glob("study/*.json"), *args.place.glob("study/**/failed.json")]:
            old.unlink()
    lease = Lease(args, sets, specs)
    if args.list:
        for spec in lease.specs:
            print(f"{spec.spec_id}  {'finished' if finished(args.tree, spec.spec_id) else 'to do':<9} {key_of(spec)}")
        return
    if lease.device == "cpu" and not args.tiny:
        sys.exit("no CUDA device here; --tiny rehearses the whole script on the CPU")
    say(f"{machine()}, commit {commit()}, {lease.device}")
    try:
        note = lease.everything()
    except DeviceLost as error:
        note = f"the GPU no longer answers ({error}); call again"
    lease.send(note)
    say(f"{note}; {(time.monotonic() - lease.started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
