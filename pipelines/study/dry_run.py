"""`--dry-run`: print what a study would train, and how long it would take on this machine."""

from collections.abc import Collection, Sequence

from pipelines.cluster.cost_model import TWO_CORES, training_flops
from pipelines.cluster.estimate import estimated_seconds, measurement_seconds
from pipelines.cluster.groups import group_count, new_plan
from pipelines.cluster.layout import Capacity, Layout
from pipelines.executor.measuring import tasks_for
from pipelines.executor.outcomes import outcome
from pipelines.study.config import StudyConfig
from pipelines.study.progress import REST_SECONDS
from pipelines.study.running import Running
from pipelines.words import clock, counted, name_of
from uvb.experiments import Context
from uvb.models.capacity import parameters
from uvb.plan import Plan
from uvb.spec import RunSpec

RAY_SECONDS = 20.0  # on two cores Ray starts in 7 s with a warm disk cache, and in 33 s with a cold one


def dry_run(
    study: Running, config: StudyConfig, layout: Layout, has: Capacity, experiments: Sequence[str], *, ended: Collection[str]
) -> str:
    """Print models, widths, parameters, experiments and the estimated times on this machine. Do not start Ray or write files.

    Args:
        ended: the outcomes, such as "done", after which a model is not trained again.

    Returns:
        The last line to print, with the totals.
    """
    images, say = study.images, study.screen.say
    specs = [spec for spec in study.specs if outcome(study.store, spec.spec_id) not in ended]
    if len(specs) < len(study.specs):
        trained = len(study.specs) - len(specs)
        say(f"{trained} of {len(study.specs)} models are trained already in {study.store.uri}")
    if not specs:
        return "nothing is left to train"
    plan = new_plan(config, layout, specs)
    seconds = estimated_seconds(specs, plan, images)
    say(f"{has}: {layout}; {plan}")
    left = 2 + max(len(name_of(spec)) for spec in specs)
    right = 2 + max(len(str(spec.widths)) for spec in specs)
    say(f"{'model':<{left}}{'widths':<{right}}{'parameters':>12}{'epochs':>8}{'GFLOP':>12}{'seconds':>10}")
    for spec in specs:
        count, gflop = parameters(spec.model, spec.data.shape, spec.widths), training_flops(spec) / 1e9
        say(f"{name_of(spec):<{left}}{spec.widths!s:<{right}}{count:>12,}{spec.recipe.epochs:>8}{gflop:>12,.0f}"
            f"{seconds[spec.spec_id]:>10,.1f}")  # fmt: skip
    groups = group_count(specs, plan, layout)
    crowding = max(1.0, layout.workers * layout.concurrency * layout.threads / has.cpus) if layout.device == "cpu" else 1.0
    starting = groups * TWO_CORES.startup / layout.concurrency
    training = sum(seconds.values()) * crowding / layout.concurrency
    measuring = measurement_costs(study, config, specs, experiments, has.cpus)
    return (
        f"{counted(len(specs), 'model')}: about {clock(training)} of training, {clock(starting)} of starting workers, "
        f"{clock(measuring)} of measurements, "
        f"{clock(RAY_SECONDS + REST_SECONDS)} before and after, timed on this machine at its present load"
    )


def measurement_costs(
    study: Running, config: StudyConfig, specs: Sequence[RunSpec], experiments: Sequence[str], cpus: int
) -> float:
    """Print the models, the gradients and the estimated seconds of each experiment. Return the sum of the seconds."""
    context = Context(study.images, Plan(precision=config.eval_precision), config.evaluation, scale=config.scale)
    tasks = [task for task in tasks_for(specs, experiments) if task.name != "reference"]
    seconds, width = measurement_seconds(tasks, context, cpus), 2 + max(map(len, ("experiment", *experiments)))
    study.screen.say(f"{'experiment':<{width}}{'models':>8}{'gradients':>12}{'seconds':>10}")
    for name, each in seconds.items():
        own = [task for task in tasks if task.name == name]
        gradients = sum(task.gradients(context) for task in own)
        study.screen.say(f"{name:<{width}}{len(own):>8}{gradients:>12,.0f}{each:>10,.1f}")
    if len(seconds) > 1:
        study.screen.say("--experiments NAMES measures only some of them, e.g. --experiments losses denoise_rows")
    return sum(seconds.values())
