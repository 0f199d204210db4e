"""Export a finished or running study to TensorBoard or Weights & Biases, with the numbers and names that MLflow has."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.files.study_files import StudyFiles, read_object
from pipelines.reporting.tables import make_tables
from pipelines.tracking.connection import Point
from pipelines.tracking.values import (
    curve_points,
    experiment_values,
    first_page,
    flat,
    lines_over_sigma,
    model_values,
    plain_names,
)
from pipelines.words import name_of
from uvb.errors import UserError


@dataclass(frozen=True)
class Trained:
    """The parameters, curves and single numbers of a training, or of the whole study. The latter has the name ``study``."""

    name: str
    spec_id: str
    params: dict[str, Any]
    points: list[Point]
    values: dict[str, float]


def tensorboard(training: Trained, folder: Path) -> None:
    """Write an event file below `folder`, for ``tensorboard --logdir FOLDER``."""
    from tensorboardX import SummaryWriter

    for old in (folder / training.name).glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder / training.name)) as writer:
        writer.add_text("parameters", "```json\n" + json.dumps(training.params, indent=1) + "\n```")
        for metric, value, step, ms in training.points:
            writer.add_scalar(metric, value, step, ms / 1000)
        for metric, value in training.values.items():
            writer.add_scalar(metric, value, 0)


def weights_and_biases(training: Trained, folder: Path) -> None:
    """Write an offline run below `folder`, and send nothing. ``wandb sync FOLDER/wandb/offline-run-*`` uploads the run."""
    try:
        import wandb
    except ImportError as error:
        raise UserError("Weights & Biases is not installed: pip install wandb") from error
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"wandb/offline-run-*-{training.spec_id}"):
        shutil.rmtree(old)
    about = {"name": training.name, "id": training.spec_id, "config": training.params}
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
    run = wandb.init(project="uvb", dir=str(folder), mode="offline", settings=settings, **about)
    by_step: dict[int, dict[str, float]] = {}
    for metric, value, step, _ in training.points:
        by_step.setdefault(step, {})[metric] = value
    for step, row in sorted(by_step.items()):
        run.log(row, step=step)
    run.summary.update(training.values)
    run.finish()


# A sink writes one training below a folder. If it writes the same training again, it replaces the older files.
Sink = Callable[[Trained, Path], None]
SINKS: dict[str, Sink] = {"tensorboard": tensorboard, "wandb": weights_and_biases}


def export(study: Path, kind: str, folder: Path) -> int:
    """Write a study and its trainings into the sink `kind` of `SINKS`; return how many trainings there are.

    Raises:
        UserError: `study` is not a study, one of its files is damaged, or the sink's package is not installed.
    """
    files = StudyFiles(study)
    tables = make_tables(files)
    losses, internals, pairs = (tables[name].to_dict("records") for name in ("losses", "internals", "pairs"))
    values = model_values(losses, internals)
    for task in sorted(path.name for path in (study / "tasks").glob("*/")):
        for model, result in files.of_models(task):
            values.setdefault(model.spec_id, {}).update(experiment_values(task, result.values))
    names = {spec_id: name_of(model.spec) for spec_id, model in files.models.items()}
    for spec_id, model in files.models.items():
        spec = model.spec
        params = {"dataset": spec.data.name, "widths": str(spec.widths), **flat(spec.to_json()), **flat({"plan": model.plan})}
        points = list(curve_points(model.curves, None, spec.objective))
        SINKS[kind](Trained(plain_names(spec_id, names), spec_id, params, points, values.get(spec_id, {})), folder)
    now, lines = int(1000 * time.time()), lines_over_sigma(losses)
    points = [(f"{metric}/{line}", y, step, now) for line, at in lines.items() for (metric, step), y in sorted(at.items())]
    asked = {k: v for k, v in read_object(study / "study.json").items() if k != "provenance"}
    SINKS[kind](Trained("study", "study", flat(asked), points, first_page(losses, pairs)[0]), folder)
    return len(names)
