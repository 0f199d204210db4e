"""Run a study from its images to its report. `full_study.py` and `sweep.py` both call `run_study`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.cluster.layout import choose_layout, local_capacity
from pipelines.cluster.memory import require_memory
from pipelines.cluster.ray_runtime import cluster_capacity, leave_ray, require_alive, require_shared, resolver, start_ray
from pipelines.errors import CommandFailed
from pipelines.executor.outcomes import outcome
from pipelines.files.lock import study_lock
from pipelines.study.addresses import Addresses
from pipelines.study.config import StudyConfig
from pipelines.study.dry_run import dry_run
from pipelines.study.endings import heed_signals, translated, undisturbed
from pipelines.study.reading import read_images
from pipelines.study.running import Running
from pipelines.study.screen import Screen
from pipelines.study.searching import Search
from pipelines.study.specs import build_specs, chosen_experiments
from pipelines.study.stages import measure, plan, prepare, report, tidy, train
from pipelines.tracking.address import check_tracking_uri
from pipelines.tracking.projection import Status
from pipelines.tracking.thread import Tracking, views
from pipelines.tracking.tracker import Tracker
from uvb.data import ImageSet
from uvb.spec import RunSpec

EXPERIMENT = "uvb"  # MLflow's experiment of all studies

SpecsOf = Callable[[StudyConfig, ImageSet], list[RunSpec]]


def run_study(
    config: StudyConfig,
    specs_of: SpecsOf = build_specs,
    search: Search | None = None,
    held_out: bool = False,
    finishing: Callable[[Path], None] | None = None,
    addresses: Addresses | None = None,
) -> tuple[str, list[str]]:
    """Run a study, or the rest of it; return the report's address, and a line for each failure.

    Args:
        specs_of: makes the list of trainings; by default the config's models at its noise levels.
        search: how trainings are stopped early; None: no training is stopped.
        held_out: train on four fifths of the training images and judge by the last fifth, so that the test set is not used.
        finishing: writes further tables before the report is made; it gets a local copy of the study's folder.
        addresses: the checks that the store, the cluster and MLflow answer, if they have begun already; None: begin them now.

    Raises:
        UserError: the options, the data, the folder or the cluster do not allow the study.
        CommandFailed: Ray has died, or an unexpected error ended the study.
    """
    heed_signals()
    screen = Screen()
    store, address = (addresses or Addresses(config)).answers()  # first, since images may take hours to convert
    images = read_images(config, screen, held_out)
    specs, experiments = specs_of(config, images), chosen_experiments(config)
    study = Running(images, specs, store, screen)
    if not config.dry_run:
        check_tracking_uri(config.tracking_uri)  # makes the folder of a SQLite file, so a dry run skips it
    if address:
        with study.stage("join Ray"):
            _start_ray(address)
    has = cluster_capacity(config) if address else local_capacity()
    layout = choose_layout(config, has, specs)  # refuses impossible options before anything is written
    require_memory(specs, layout, has, lambda spec: bool(outcome(study.store, spec.spec_id)))
    if config.dry_run:
        return dry_run(study, config, layout, has, experiments, ended=("done", "stopped") if search else ("done",)), []

    study.store.require_writable()
    with study_session(study, config, searching=search is not None) as tracking:
        with study.stage("start Ray"):
            if not address:
                study.screen.note("starting Ray")
                _start_ray(None)
            require_shared(study.store, has)
            groups = plan(study, config, layout, has, search is not None, resolver(layout, has))
            if has.cluster:
                require_shared(study.store, cluster_capacity(config))  # new nodes may have joined while the plan was made
            study.check()
        with study.stage("training"):
            train(study, config, groups, layout, config.checkpoint_seconds, experiments, search)
        with study.stage("measurements"):
            measure(study, config, experiments, layout, config.data_dir)
        with study.stage("tables, figures, report"):
            tidy(study)
            tracking.sync()  # the tables name MLflow's runs
            address_of_report = report(study, finishing)
    for line in views(tracking.tracker):
        study.screen.say(line)
    return address_of_report, study.failures


def _start_ray(address: str | None) -> None:
    """Join the cluster at `address`; None: start Ray here. Ray sets its own signal handlers, so set ours again."""
    start_ray(address)
    heed_signals()


@contextmanager
def study_session(study: Running, config: StudyConfig, searching: bool) -> Iterator[Tracking]:
    """For a block, hold the study's lock and log the study to MLflow. However the block ends, end MLflow's runs and Ray."""
    with study_lock(study.store, config.name, study.screen.say) as still_mine:
        with study.stage("prepare"):
            prepare(study, config, searching)
        tracking = Tracking(Tracker(config.tracking_uri, EXPERIMENT, config.name, study.store, warn=study.screen.say))
        study.checks = [still_mine, tracking.check, require_alive]
        status: Status = "FAILED"
        at_once = False  # whether to kill Ray, because it is broken or a person waits
        try:
            with translated(study.store):
                yield tracking
            status = "FAILED" if study.failures else "FINISHED"
        except CommandFailed:
            at_once = True
            raise
        except KeyboardInterrupt:
            status, at_once = "KILLED", True
            raise
        finally:
            with undisturbed():
                study.screen.clear()
                tracking.finish(status)
                if study.runner and study.trained and not at_once:
                    study.runner.join(timeout=30)  # let Tune end by itself
                leave_ray(at_once=at_once or (study.runner is not None and study.runner.running))
                with suppress(Exception):
                    study.store.remove("ray")
                    study.write_timings()
