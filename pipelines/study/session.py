"""A study from images to report: stages that read top to bottom. `full_study.py` and `sweep.py` both run this."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray.exceptions import RayError

from pipelines.cluster.estimate import measurement_flops, measurement_seconds
from pipelines.cluster.groups import Group, fitted, make_groups, require_honourable
from pipelines.cluster.layout import (
    Capacity,
    Layout,
    choose_layout,
    cluster_address,
    cluster_capacity,
    leave_ray,
    local_capacity,
    new_plan,
    require_shared,
    start_ray,
)
from pipelines.cluster.tasks import run_tasks
from pipelines.cluster.worker import GroupRunner, last_line
from pipelines.executor.measuring import Settings, tasks_for, unfinished
from pipelines.executor.outcomes import outcome, read_json
from pipelines.files.lock import study_lock
from pipelines.files.store import Store, masked
from pipelines.reporting.page import build_report
from pipelines.study.config import StudyConfig, build_specs, chosen_experiments
from pipelines.study.dry_run import dry_run
from pipelines.study.images import save_images
from pipelines.study.progress import Screen, TrainingProgress, name_of, tasks_view
from pipelines.study.provenance import provenance
from pipelines.study.reading import read_images
from pipelines.tracking.connection import check_tracking_uri
from pipelines.tracking.projection import Status, Tracker
from pipelines.tracking.thread import Tracking, views
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models import code_changed
from uvb.plan import Plan
from uvb.spec import RunSpec

EXPERIMENT = "uvb"  # MLflow's experiment of all studies
POLL_SECONDS = (1.0, 5.0)  # how often files are looked at: a local folder, an object store

SpecsOf = Callable[[StudyConfig, ImageSet], list[RunSpec]]


@dataclass(frozen=True)
class Search:
    """Trainings that a Tune scheduler may stop early: each is a trial, and those of one model and noise level compete.

    Attributes:
        scheduler: makes a scheduler over ``loss`` (the test loss of the curves) by ``epoch``.
        report_epochs: how often a training reports to it.
    """

    scheduler: Callable[[], Any]
    report_epochs: int = 1


@dataclass
class Study:
    """What the stages share."""

    config: StudyConfig
    images: ImageSet
    specs: list[RunSpec]
    store: Store
    screen: Screen
    checks: Sequence[Callable[[], None]] = ()
    failures: list[str] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    earlier: dict[str, Any] = field(default_factory=dict)  # what timings.json said of the sessions before
    runner: GroupRunner | None = None  # the last one started; its thread may still be at work

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages.append({"name": name, "seconds": time.monotonic() - started})

    def check(self) -> None:
        """Called now and then while others work: raises where the study's lock was lost, or MLflow refuses it."""
        for check in self.checks:
            check()

    @property
    def poll_seconds(self) -> float:
        return POLL_SECONDS[0 if self.store.local_path else 1]

    def folder(self, spec: RunSpec) -> str:
        return f"models/{spec.spec_id}"


def run_study(
    config: StudyConfig,
    specs_of: SpecsOf = build_specs,
    search: Search | None = None,
    held_out: bool = False,
    finishing: Callable[[Path], None] | None = None,
) -> tuple[str, list[str]]:
    """Run a study, or the rest of it; returns the report's address and what failed, a line each.

    Args:
        specs_of: what to train; by default the config's models over its noise levels.
        search: where trainings may be stopped early.
        held_out: train on four fifths of the training images and judge by the fifth; the test set is not looked at.
        finishing: called with a local copy of the study's folder, to write further tables before the report.

    Raises:
        UserError: the config, the data, the folder or the cluster do not allow it.
    """
    heed_signals()
    screen = Screen()
    images = read_images(config, screen, held_out)
    specs = specs_of(config, images)
    experiments = chosen_experiments(config)
    address = cluster_address(config)
    if address is None or config.dry_run:
        choose_layout(config, local_capacity(), specs)  # refused before anything is written or started
    store = Store(Store(config.storage).join(config.name))
    study = Study(config, images, specs, store, screen)
    if config.dry_run:
        left = [spec for spec in specs if outcome(store, spec.spec_id) not in (("done", "stopped") if search else ("done",))]
        if len(left) < len(specs):
            screen.say(f"{len(specs) - len(left)} of {len(specs)} models are trained already in {store.uri}")
        return dry_run(config, images, left, screen.say) if left else "nothing is left to train", []
    check_tracking_uri(config.tracking_uri)
    started = time.monotonic()
    if address is not None:
        with study.stage("join Ray"):
            start_ray(address)
            heed_signals()
            choose_layout(config, cluster_capacity(config), specs)  # here too, before anything is written
    store.require_writable()
    with study_lock(store, config.name) as still_mine:
        with study.stage("prepare"):
            prepare(study, searching=search is not None)
        tracking = Tracking(Tracker(config.tracking_uri, EXPERIMENT, config.name, store, warn=screen.say))
        study.checks = [still_mine, tracking.check]
        status: Status = "FAILED"
        trained = False
        try:
            with study.stage("start Ray"):
                if address is None:
                    screen.note("starting Ray")
                    start_ray(address)
                    heed_signals()
                has = local_capacity() if address is None else cluster_capacity(config)
                layout = choose_layout(config, has, specs)
                require_shared(store, has)
                groups = plan_stage(study, layout, has, one_each=search is not None)
                if has.cluster:
                    require_shared(store, cluster_capacity(config))  # of the nodes that the plan has brought, too
                study.check()
            with study.stage("training"):
                train_stage(study, groups, layout, search, experiments)
                trained = True
            with study.stage("measurements"):
                measure_stage(study, experiments, layout)
            with study.stage("tables, figures, report"):
                for folder in ("models", "tasks"):  # nobody writes there any more, but some may have been killed as they wrote
                    store.sweep(folder)
                for spec in specs:
                    if outcome(store, spec.spec_id) == "stopped":  # nobody goes on from there
                        store.remove(f"{study.folder(spec)}/state")
                tracking.sync()  # the tables name MLflow's runs
                screen.note("writing tables, figures and report")
                report = report_stage(study, started, finishing)
            status = "FAILED" if study.failures else "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except OSError as error:
            if isinstance(error, RayError | ConnectionError) or (store.local_path and store.exists("study.json")):
                raise  # not the store's doing
            raise UserError(
                f"lost {masked(store.uri)}: {last_line(error)}; once it answers, the same command goes on"
            ) from error
        finally:
            screen.clear()
            tracking.finish(status)
            if study.runner and trained and status != "KILLED":
                study.runner.thread.join(timeout=30)  # Tune's own end
            leave_ray(at_once=status == "KILLED" or (study.runner is not None and study.runner.running))
            with suppress(Exception):
                store.remove("ray")
                write_timings(study, started)
    for line in views(tracking.tracker):
        screen.say(line)
    return report, study.failures


def prepare(study: Study, searching: bool = False) -> None:
    """The study's folder: images, specs and study.json.

    What failed is tried again, and as often as before; what a search stopped is trained where this is none.
    """
    store = study.store
    store.sweep()
    store.remove("ray")
    before = read_json(store, "timings.json")
    study.earlier = before | {"seconds": {stage["name"]: stage["seconds"] for stage in before.get("stages", [])}}
    save_images(store, study.images)
    for spec in study.specs:
        if not store.exists(f"{study.folder(spec)}/spec.json"):
            store.write_json(f"{study.folder(spec)}/spec.json", spec.to_json())
        for end in ("failed",) if searching else ("failed", "stopped"):
            store.remove(f"{study.folder(spec)}/{end}.json")
        progress = read_json(store, f"{study.folder(spec)}/progress.json")
        # it counts deaths in one session, and neither a person's Ctrl-C nor an outage that is over
        if progress.get("stuck") and not outcome(store, spec.spec_id):
            store.write_json(f"{study.folder(spec)}/progress.json", progress | {"start": None, "stuck": 0})
    config = {k: v for k, v in dataclasses.asdict(study.config).items() if k not in ("dry_run", "replan")}
    config |= {k: masked(v) for k, v in config.items() if isinstance(v, str)}
    blob = {"name": study.config.name, "config": config, "specs": [s.spec_id for s in study.specs],
            "provenance": provenance(study.images, study.specs)}  # fmt: skip
    store.write_json("study.json", blob)


def plan_stage(study: Study, layout: Layout, has: Capacity, one_each: bool = False) -> list[Group]:
    """Give every model without one a plan, honour the plans of the others, and group what is left to train.

    Raises:
        UserError: a stored plan cannot be honoured.
    """
    config, store, say = study.config, study.store, study.screen.say
    ended = [s for s in study.specs if outcome(store, s.spec_id)]  # done, or stopped by this search
    open_specs = [s for s in study.specs if s not in ended]
    if len(open_specs) < len(study.specs):
        say(f"{len(study.specs) - len(open_specs)} of {len(study.specs)} models are trained already")
    for model in sorted({spec.model for spec in of_other_code(study, ended)}):
        say(f"warning: the code of {model} has changed since it was trained; for a new training choose another --study")
    if not open_specs:
        return []
    plans = {} if config.replan else {s.spec_id: read_json(store, f"{study.folder(s)}/plan.json") for s in open_specs}
    stored = {spec_id: Plan.from_json(blob) for spec_id, blob in plans.items() if blob}
    by_plan: dict[Plan, list[RunSpec]] = {}
    new = [spec for spec in open_specs if spec.spec_id not in stored]
    fresh = new_plan(config, layout, has, new) if new else None
    for spec in open_specs:
        plan = stored.get(spec.spec_id, fresh)
        assert plan is not None
        if spec.spec_id in stored:
            require_honourable(plan, layout, has)
        else:
            store.write_json(f"{study.folder(spec)}/plan.json", plan.to_json())
            if config.replan:
                store.remove(f"{study.folder(spec)}/progress.json")
        by_plan.setdefault(plan, []).append(spec)
    say(f"{has}: {layout}")
    for plan, specs in by_plan.items():
        kept = " (its plan is kept; --replan chooses anew)" if plan != fresh else ""
        say(f"{len(specs)} model{'s' * (len(specs) != 1)} to train: {plan}{kept}")
    return make_groups(by_plan, layout, one_each)


def of_other_code(study: Study, trained: Sequence[RunSpec]) -> set[RunSpec]:
    """Those of `trained` whose models' code is another now: their weights would be measured as what they are not."""
    codes = {spec: read_json(study.store, f"{study.folder(spec)}/done.json").get("code") for spec in trained}
    return {spec for spec, code in codes.items() if code_changed(spec.model, code)}


def train_stage(
    study: Study, groups: Sequence[Group], layout: Layout, search: Search | None, experiments: Sequence[str]
) -> None:
    """Train what is left; failures are noted and do not stop the others."""
    rounds: dict[Any, list[Group]] = {}
    for group in groups:
        rounds.setdefault((group.specs[0].model, group.specs[0].sigma) if search else None, []).append(group)
    seconds, operations = measurements_ahead(study, groups, layout) if groups and "losses" in experiments else (0.0, 0.0)
    tasks = len(tasks_for(study.specs, experiments))
    progress = TrainingProgress(study.specs, study.store, tasks, seconds, operations)
    for competing in rounds.values():
        if study.runner:
            study.runner.thread.join()
        specs = [spec for group in competing for spec in group.specs]
        scheduler, report_epochs = (search.scheduler(), search.report_epochs) if search else (None, 0)
        runner = study.runner = GroupRunner(
            competing, fitted(layout, groups), study.store, study.config.checkpoint_seconds, scheduler, report_epochs
        )
        runner.start()
        while runner.running and not progress.ended(specs):
            time.sleep(study.poll_seconds)
            study.check()
            for line in progress.read():
                study.screen.say(line)
            study.screen.show(*progress.view())
        for line in progress.read():
            study.screen.say(line)
        for spec in specs:
            end = progress.outcome.get(spec.spec_id)
            if end == "failed":
                failed = read_json(study.store, f"{study.folder(spec)}/failed.json")
                study.failures.append(failed.get("error", name_of(spec)))
            elif end is None:
                study.failures.append(f"{name_of(spec)} ({spec.spec_id}) was not trained to its end")
        study.failures += runner.errors
    study.screen.clear()
    if groups:
        outcomes = list(progress.outcome.values())
        stopped = f", {outcomes.count('stopped')} stopped early" if "stopped" in outcomes else ""
        study.screen.say(f"{outcomes.count('done')} of {len(progress.specs)} models trained{stopped}")


def measurements_ahead(study: Study, groups: Sequence[Group], layout: Layout) -> tuple[float, float]:
    """What the measurements will take: seconds, timed here if CPUs make them; or operations, if GPUs do."""
    config, images = study.config, study.images
    left = [s for s in study.specs if not study.store.exists(f"tasks/losses/{s.spec_id}/result.json")]
    if layout.device == "cuda":
        trained_in = groups[0].plan.precision
        return 0.0, measurement_flops(left, config.eval_precision, trained_in, images, config.evaluation)
    study.screen.note("timing a measurement")
    cpus = round(layout.workers * layout.concurrency * layout.cpus_per_worker)
    return measurement_seconds(left, Plan(precision=config.eval_precision), images, config.evaluation, cpus), 0.0


def measure_stage(study: Study, experiments: Sequence[str], layout: Layout) -> None:
    """The downstream tasks of every trained model that are not done yet."""
    store = study.store
    trained = [spec for spec in study.specs if store.exists(f"{study.folder(spec)}/done.json")]
    plan = Plan(device=layout.device, precision=study.config.eval_precision, graph=layout.device == "cuda")
    settings = Settings(study.config.evaluation, plan, scale=study.config.scale)
    everything = tasks_for(trained, experiments)
    store.write_json("tasks/settings.json", {name: settings.key(name) for name in sorted({t.name for t in everything})})
    tasks, other = unfinished(everything, study.store, settings), of_other_code(study, trained)
    kept_from = sorted({t.spec.model for t in tasks if t.spec in other and t.name != "reference"})
    tasks = [t for t in tasks if t.spec not in other or t.name == "reference"]
    study.failures += [
        f"{model} is not measured: its code has changed since it was trained; take that back, or choose another --study"
        for model in kept_from
    ]
    if len(tasks) < len(everything):
        study.screen.say(f"{len(everything) - len(tasks)} of {len(everything)} measurements are done already")
    started = time.monotonic()
    failed: dict[str, str] = {}
    for done, failed in run_tasks(tasks, study.store, settings, layout):  # noqa: B007  # the last is used below
        study.check()
        study.screen.show(*tasks_view(done, len(tasks), time.monotonic() - started))
    study.screen.clear()
    study.failures += failed.values()
    if tasks:
        study.screen.say(f"{len(tasks) - len(failed)} measurements made")


def report_stage(study: Study, started: float, finishing: Callable[[Path], None] | None) -> str:
    """Tables, figures and report.html in the study's folder; returns the report's address."""
    write_timings(study, started)
    with local_copy(study.store) as folder:
        if finishing:
            finishing(folder)
        build_report(folder)
        if not study.store.local_path:
            for name in ("tables", "figures"):
                if (folder / name).is_dir():
                    study.store.upload(folder / name, name)
            study.store.write_bytes("report.html", (folder / "report.html").read_bytes())
    return study.store.join("report.html")


@contextmanager
def local_copy(store: Store) -> Iterator[Path]:
    """A local folder with what tables and report are made of: the store itself, or a copy without weights and images."""
    if store.local_path:
        yield store.local_path
        return
    with TemporaryDirectory(prefix="uvb-report-") as scratch:
        root = Path(scratch)
        (root / "models").mkdir()
        for path in store.stamps():
            top, *rest = path.split("/")
            if not rest or (top in ("models", "tasks") and not {"state", "model"} & set(rest[1:])):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(store.read_bytes(path))
        yield root


def heed_signals() -> None:
    """Ctrl-C and a polite kill both stop the study cleanly; Ray has set its own handlers, and a shell may ignore Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)


def write_timings(study: Study, started: float) -> None:
    """timings.json: this session's stages, added to those of the sessions before that ended by themselves."""
    seconds = dict(study.earlier.get("seconds", {}))
    for stage in study.stages:
        seconds[stage["name"]] = seconds.get(stage["name"], 0.0) + stage["seconds"]
    total = study.earlier.get("total_seconds", 0.0) + time.monotonic() - started
    stages = [{"name": name, "seconds": value} for name, value in seconds.items()]
    study.store.write_json(
        "timings.json", {"stages": stages, "total_seconds": total, "sessions": study.earlier.get("sessions", 0) + 1}
    )
