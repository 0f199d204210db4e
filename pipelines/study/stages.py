"""The stages of a study, in order. Each stage writes its results into the study's folder."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.cluster.driver import GroupRunner
from pipelines.cluster.estimate import measurement_flops, measurement_seconds
from pipelines.cluster.groups import Group, fitted, make_groups, new_plan, require_usable
from pipelines.cluster.layout import Capacity, Layout
from pipelines.cluster.tasks import run_tasks
from pipelines.executor.measuring import Settings, tasks_for, unfinished
from pipelines.executor.outcomes import outcome
from pipelines.files.formats import Done, FailedJson, ProgressJson, Timings
from pipelines.files.masking import masked_json
from pipelines.files.names import inside
from pipelines.files.store import Store
from pipelines.reporting.page import build_report
from pipelines.reporting.summary import summary
from pipelines.study.config import ClusterOptions, MeasureOptions, StudyConfig
from pipelines.study.images import save_images
from pipelines.study.presets import OF_ONE_CALL, preset_text
from pipelines.study.progress import TrainingProgress, tasks_view
from pipelines.study.provenance import provenance
from pipelines.study.running import Running
from pipelines.study.searching import Search
from pipelines.words import counted, name_of
from uvb.experiments import Context
from uvb.models import code_changed
from uvb.plan import Plan, resolve_plan
from uvb.spec import RunSpec

# ------------------------------------------------------------------------------------------------------------- prepare


def prepare(study: Running, config: StudyConfig, searching: bool = False) -> None:
    """Write images, specs and study.json into the study's folder.

    Failed trainings are tried again. If an earlier search stopped a training, another search leaves it stopped, and any other
    command continues it.
    """
    store = study.store
    store.sweep()
    store.remove("ray")  # what Tune wrote for an earlier command
    study.earlier = store.find_json("timings.json", Timings)
    save_images(store, study.images)
    for spec in study.specs:
        folder = study.folder(spec)
        if not store.exists(f"{folder}/spec.json"):
            store.write_json(f"{folder}/spec.json", spec.to_json())
        store.remove(f"{folder}/failed.json")
        if not searching:
            store.remove(f"{folder}/stopped.json")
        progress = store.find_json(f"{folder}/progress.json", ProgressJson)
        # Count the deaths of workers anew, since a Ctrl-C or a past outage may have caused the old ones.
        if progress.get("stuck") and not outcome(store, spec.spec_id):
            store.write_json(f"{folder}/progress.json", progress | {"start": None, "stuck": 0})
    asked = {k: v for k, v in dataclasses.asdict(config).items() if k not in OF_ONE_CALL}
    origin = provenance(study.images, study.specs)
    blob = {"name": config.name, "config": asked, "specs": [s.spec_id for s in study.specs], "provenance": origin}
    store.write_json("study.json", masked_json(blob))
    store.write_bytes("study.yaml", preset_text(config).encode())


# ---------------------------------------------------------------------------------------------------------------- plan


def plan(
    study: Running,
    options: ClusterOptions,
    layout: Layout,
    has: Capacity,
    one_each: bool = False,
    resolve: Callable[..., Plan] = resolve_plan,
) -> list[Group]:
    """Give a plan to every model that has none, keep the stored plans, and group the models that are left to train.

    A plan says how a model is trained: by how many workers, on which device, in which precision.

    Args:
        one_each: make a group of each model, rather than groups of about equal cost.
        resolve: `resolve_plan`, or a function that runs it where the workers will run.

    Raises:
        UserError: a stored plan cannot be followed.
    """
    store, say = study.store, study.screen.say
    ended = [s for s in study.specs if outcome(store, s.spec_id)]  # done, or stopped in this search
    open_specs = [s for s in study.specs if s not in ended]
    if ended:
        say(f"{len(ended)} of {len(study.specs)} models are trained already")
    for model in sorted({spec.model for spec in of_other_code(study, ended)}):
        say(f"warning: the code of {model} has changed since it was trained; for a new training choose another --study")
    if not open_specs:
        return []
    blobs = {} if options.replan else {s: store.find_json(f"{study.folder(s)}/plan.json") for s in open_specs}
    plans = {spec: Plan.from_json(blob) for spec, blob in blobs.items() if blob}
    for stored in plans.values():
        require_usable(stored, layout, has)
    new = [spec for spec in open_specs if spec not in plans]
    fresh: Plan | None = None
    if new:
        fresh = new_plan(options, layout, new, resolve)
        for spec in new:
            plans[spec] = fresh
            store.write_json(f"{study.folder(spec)}/plan.json", fresh.to_json())
            if options.replan:
                store.remove(f"{study.folder(spec)}/progress.json")
    by_plan: dict[Plan, list[RunSpec]] = {}
    for spec in open_specs:
        by_plan.setdefault(plans[spec], []).append(spec)
    say(f"{has}: {layout}")
    for how, specs in by_plan.items():
        kept = " (a stored plan; --replan chooses a new one)" if how != fresh else ""
        say(f"{counted(len(specs), 'model')} to train: {how}{kept}")
    return make_groups(by_plan, layout, one_each)


def of_other_code(study: Running, trained: Sequence[RunSpec]) -> set[RunSpec]:
    """Return the trained specs for which the model's code has changed since. With other code the weights give other results."""
    codes = {spec: study.store.find_json(f"{study.folder(spec)}/done.json", Done).get("code") for spec in trained}
    return {spec for spec, code in codes.items() if code_changed(spec.model, code)}


# --------------------------------------------------------------------------------------------------------------- train


def train(
    study: Running,
    options: MeasureOptions,
    groups: Sequence[Group],
    layout: Layout,
    checkpoint_seconds: float,
    experiments: Sequence[str],
    search: Search | None = None,
) -> None:
    """Train the models that are left. A model that fails is noted and does not stop the others.

    Args:
        options: how models will be measured afterwards. The time left on the screen includes these measurements.
    """
    if groups:
        seconds, operations = measurements_ahead(study, options, groups, layout, experiments)
        progress = TrainingProgress(study.specs, study.store, len(tasks_for(study.specs, experiments)), seconds, operations)
        for competing in rounds(groups, search):
            train_round(study, progress, competing, fitted(layout, groups), checkpoint_seconds, search)
        study.screen.clear()
        outcomes = list(progress.outcome.values())
        stopped = f", {outcomes.count('stopped')} stopped early" if "stopped" in outcomes else ""
        study.screen.say(f"{outcomes.count('done')} of {len(progress.specs)} models trained{stopped}")
    study.trained = True


def rounds(groups: Sequence[Group], search: Search | None) -> list[list[Group]]:
    """Split the groups into those that train together. In a search, only trainings of one model and noise level compete."""
    if not search:
        return [list(groups)]
    found: dict[tuple[str, float], list[Group]] = {}
    for group in groups:
        spec = group.specs[0]
        found.setdefault((spec.model, spec.sigma), []).append(group)
    return list(found.values())


def train_round(
    study: Running,
    progress: TrainingProgress,
    groups: Sequence[Group],
    layout: Layout,
    checkpoint_seconds: float,
    search: Search | None,
) -> None:
    """Train `groups` and show the progress, until every model has an outcome or Tune has ended."""
    if study.runner:
        study.runner.join()
    specs = [spec for group in groups for spec in group.specs]
    scheduler, report_epochs = (search.scheduler(), search.report_epochs) if search else (None, 0)
    study.runner = GroupRunner(groups, layout, study.store, checkpoint_seconds, scheduler, report_epochs).start()
    while study.runner.running and not progress.ended(specs):
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
            failed = study.store.find_json(f"{study.folder(spec)}/failed.json", FailedJson)
            study.failures.append(failed.get("error", name_of(spec)))
        elif end is None:
            study.failures.append(f"{name_of(spec)} ({spec.spec_id}) was not trained to its end")
    study.failures += study.runner.errors


def measurements_ahead(
    study: Running, options: MeasureOptions, groups: Sequence[Group], layout: Layout, experiments: Sequence[str]
) -> tuple[float, float]:
    """The cost of the measurements to come. On CPUs time them here, and return (seconds, 0). On GPUs return (0, operations)."""
    specs = [s for s in study.specs if not study.store.exists(f"tasks/losses/{s.spec_id}/result.json")]
    left = tasks_for(specs, experiments)
    context = Context(study.images, Plan(precision=options.eval_precision), options.evaluation, scale=options.scale)
    if layout.device == "cuda":
        return 0.0, measurement_flops(left, context, groups[0].plan.precision)
    study.screen.note("timing a measurement")
    cpus = round(layout.workers * layout.concurrency * layout.cpus_per_worker)
    return sum(measurement_seconds(left, context, cpus).values()), 0.0


# ------------------------------------------------------------------------------------------------------------- measure


def measure(study: Running, options: MeasureOptions, experiments: Sequence[str], layout: Layout, data_dir: str) -> None:
    """Make the missing measurements of every trained model."""
    store, screen = study.store, study.screen
    trained = [spec for spec in study.specs if store.exists(f"{study.folder(spec)}/done.json")]
    how = Plan(device=layout.device, precision=options.eval_precision, graph=layout.device == "cuda")
    settings = Settings(options.evaluation, how, scale=options.scale, data_dir=str(Path(data_dir).resolve()))
    everything = tasks_for(trained, experiments)
    store.write_json("tasks/settings.json", {name: settings.key(name) for name in sorted({t.name for t in everything})})
    left, other = unfinished(everything, store, settings), of_other_code(study, trained)
    # The task "reference" computes exact answers and uses no model.
    refused = [task for task in left if task.spec in other and task.name != "reference"]
    tasks = [task for task in left if task not in refused]
    study.failures += [
        f"{model} is not measured: its code has changed since training; revert the change, or choose another --study"
        for model in sorted({task.spec.model for task in refused})
    ]
    if len(left) < len(everything):
        screen.say(f"{len(everything) - len(left)} of {len(everything)} measurements are done already")
    started = time.monotonic()
    failed: dict[str, str] = {}
    for done, failed in run_tasks(tasks, store, settings, layout, study.check):  # noqa: B007  # the last `failed` is used below
        screen.show(*tasks_view(done, len(tasks), time.monotonic() - started))
    screen.clear()
    study.failures += failed.values()
    if tasks:
        screen.say(f"{counted(len(tasks) - len(failed), 'measurement')} made")


# -------------------------------------------------------------------------------------------------------------- report


def tidy(study: Running) -> None:
    """Remove half-written files, and the checkpoints of stopped trainings. Call this only while no process writes."""
    for folder in ("models", "tasks"):
        study.store.sweep(folder)
    for spec in study.specs:
        if outcome(study.store, spec.spec_id) == "stopped":
            study.store.remove(f"{study.folder(spec)}/state")


def report(study: Running, finishing: Callable[[Path], None] | None = None) -> str:
    """Write tables, figures and report.html into the study's folder; return the report's address.

    Args:
        finishing: writes further tables before the report is made; it gets a local copy of the study's folder.
    """
    study.screen.note("writing tables, figures and report")
    study.write_timings()
    with local_copy(study.store) as folder:
        if finishing:
            finishing(folder)
        build_report(folder)
        for line in summary(folder):
            study.screen.say(line)
        if not study.store.local_path:
            for name in ("tables", "figures"):
                if (folder / name).is_dir():
                    study.store.upload(folder / name, name)
            study.store.write_bytes("report.html", (folder / "report.html").read_bytes())
    return study.store.join("report.html")


@contextmanager
def local_copy(store: Store) -> Iterator[Path]:
    """Yield a local folder to make tables and report from: the study's own, or a copy without weights and images."""
    if store.local_path:
        yield store.local_path
        return
    with TemporaryDirectory(prefix="uvb-report-") as scratch:
        root = Path(scratch)
        (root / "models").mkdir()
        for path in store.stamps():
            top, *rest = path.split("/")
            weights = {"state", "model"} & set(rest[1:])  # checkpoints, and the trained model
            at_top = not rest
            if at_top or (top in ("models", "tasks") and not weights):
                target = root / inside(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(store.read_bytes(path))
        yield root
