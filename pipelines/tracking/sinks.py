"""A finished or running study for those who use TensorBoard or Weights & Biases: the numbers that MLflow has, by its names."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipelines.files.study_files import Model, StudyFiles
from pipelines.reporting.tables import make_tables
from pipelines.tracking.connection import Point
from pipelines.tracking.values import curve_points, flat, model_values, plain_names
from pipelines.words import name_of
from uvb.errors import UserError


class Sink(Protocol):
    """Takes a study's trainings one by one. Writing a training again replaces what was there."""

    def training(
        self, name: str, spec_id: str, params: Mapping[str, Any], points: Iterable[Point], values: Mapping[str, float]
    ) -> None:
        """One training: its parameters, its curves as (metric, value, step, ms), and single numbers such as ``test_loss``."""

    def close(self) -> None:
        """Called once at the end."""


class TensorBoard:
    """Event files below `folder`, a run for each training: ``tensorboard --logdir FOLDER``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def training(
        self, name: str, spec_id: str, params: Mapping[str, Any], points: Iterable[Point], values: Mapping[str, float]
    ) -> None:
        from tensorboardX import SummaryWriter

        run = self.folder / name
        for old in run.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(run)) as writer:
            writer.add_text("parameters", "```json\n" + json.dumps(dict(params), indent=1) + "\n```")
            for metric, value, step, ms in points:
                writer.add_scalar(metric, value, step, ms / 1000)
            for metric, value in values.items():
                writer.add_scalar(metric, value, 0)

    def close(self) -> None:
        """Nothing is left open."""


class WeightsAndBiases:
    """Offline runs below `folder`, which ``wandb sync FOLDER/wandb/offline-run-*`` uploads. Nothing is sent from here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            import wandb
        except ImportError as error:
            raise UserError("Weights & Biases is not installed: pip install wandb") from error
        self._wandb = wandb

    def training(
        self, name: str, spec_id: str, params: Mapping[str, Any], points: Iterable[Point], values: Mapping[str, float]
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob(f"wandb/offline-run-*-{spec_id}"):
            shutil.rmtree(old)
        settings = self._wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        run = self._wandb.init(
            project="uvb", name=name, id=spec_id, dir=str(self.folder), mode="offline", config=dict(params), settings=settings
        )
        by_step: dict[int, dict[str, float]] = {}
        for metric, value, step, _ in points:
            by_step.setdefault(step, {})[metric] = value
        for step, row in sorted(by_step.items()):
            run.log(row, step=step)
        run.summary.update(dict(values))
        run.finish()

    def close(self) -> None:
        """Nothing is left open."""


SINKS: dict[str, Callable[[Path], Sink]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def export(study: Path, kind: str, folder: Path) -> int:
    """Write a study's trainings into a sink of a kind of `SINKS`; returns how many there are.

    Raises:
        UserError: `study` is none, one of its files is damaged, or the sink's package is not installed.
    """
    files, sink = StudyFiles(study), SINKS[kind](folder)
    tables = make_tables(files)
    values = model_values(*(tables[name].to_dict("records") for name in ("losses", "internals")))
    names = {spec_id: name_of(model.spec) for spec_id, model in files.models.items()}
    for spec_id, model in files.models.items():
        sink.training(plain_names(spec_id, names), spec_id, _params(model), _points(model), values.get(spec_id, {}))
    sink.close()
    return len(names)


def _params(model: Model) -> dict[str, Any]:
    spec = model.spec
    return {"dataset": spec.data.name, "widths": str(spec.widths), **flat(spec.to_json()), **flat({"plan": model.plan})}


def _points(model: Model) -> list[Point]:
    return list(curve_points(model.curves, None, model.spec.objective))
