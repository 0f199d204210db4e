"""Measure trained models: list their tasks, run one task in this process, and compute the exact references."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import save_file

from pipelines.files.formats import Done
from pipelines.files.store import Store
from pipelines.study.images import load_images
from uvb.accelerate.cpu import keep_large_buffers
from uvb.data import ImageSet
from uvb.exact.reference import reference
from uvb.experiments import Context, Result, get_experiment
from uvb.measure.losses import EvalConfig, evaluation_images
from uvb.models.base import Estimator
from uvb.models.capacity import skeleton
from uvb.models.io import load
from uvb.plan import Plan
from uvb.spec import DataRef, RunSpec

# Raise this version when the same settings give other numbers. Version 1 measured the first test images, version 2 random ones.
MEASUREMENT = 2
EXACT_PAIRS = 1e9  # above this many pairs (noisy image, training image), the references use only one noise draw


@dataclass(frozen=True)
class Settings:
    """How tasks measure. Each result stores a hash of these settings. If the hash changes, the task runs again."""

    evaluation: EvalConfig
    plan: Plan
    seed: int = 0
    scale: float = 1.0  # share of the usual chains and images that experiments use, in (0, 1]
    data_dir: str = "data"  # the folder of named data sets; some experiments read such sets besides the study's own

    def key(self, task: str) -> str:
        """Hash the settings that change the numbers of this task. The number of threads changes none."""
        plan, evaluation = self.plan, dataclasses.asdict(self.evaluation)
        scale = self.scale if task != "reference" and get_experiment(task).scaled else 1.0
        relevant = [MEASUREMENT, evaluation, self.seed, scale, plan.precision, plan.device]
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Task:
    """An experiment on one model. The task called "reference" gives the exact answers for a data set and noise level."""

    name: str
    key: str
    """The name of its folder: the spec_id. For a reference: the checksum, the number of training images, and σ."""
    spec: RunSpec

    @property
    def folder(self) -> str:
        return f"tasks/{self.name}/{self.key}"

    def gradients(self, context: Context) -> float:
        """Estimate how many gradients of the model this task computes (see `Experiment.gradients`). A reference needs none."""
        return get_experiment(self.name).gradients(self.spec, context) if self.name != "reference" else 0.0

    @property
    def label(self) -> str:
        """The task's name in messages. Models that differ only in their seed have the same label, but not the same folder."""
        return f"{self.name} of {self.spec.label}" if self.name != "reference" else f"reference at σ={self.spec.sigma:g}"


def tasks_for(specs: Sequence[RunSpec], experiments: Sequence[str]) -> list[Task]:
    """List the tasks of trained models, the references first."""
    found: dict[str, Task] = {}
    for spec in specs:
        key = f"{spec.data.checksum}-{spec.data.train_images}-{spec.sigma:.12g}"
        found.setdefault(key, Task("reference", key, spec))
    largest = max((spec.sigma for spec in specs), default=0.0)
    tasks = list(found.values())
    for name in experiments:
        experiment = get_experiment(name)
        for spec in specs:
            if experiment.applies(model_class(spec), spec.data.name) and (experiment.where == "every" or spec.sigma == largest):
                tasks.append(Task(name, spec.spec_id, spec))
    return tasks


@lru_cache(maxsize=256)
def model_class(spec: RunSpec) -> type[Estimator]:
    """The class of a spec's model."""
    return type(skeleton(spec.model, spec.data.shape, spec.widths))


def unfinished(tasks: Sequence[Task], store: Store, settings: Settings) -> list[Task]:
    """The tasks without a valid result. A result is valid for the settings and weights with which it was measured."""
    trained_at = {spec: trained(store, spec) for spec in {task.spec for task in tasks}}

    def valid(task: Task) -> bool:
        result, weights = store.find_json(f"{task.folder}/result.json"), trained_at[task.spec]
        same_weights = task.name == "reference" or result.get("trained", weights) == weights  # old results lack `trained`
        return result.get("settings") == settings.key(task.name) and same_weights

    return [task for task in tasks if not valid(task)]


def trained(store: Store, spec: RunSpec) -> float | None:
    """The time at which a model's training ended. It identifies the weights, because no two trainings end at the same time."""
    time: float | None = store.find_json(f"models/{spec.spec_id}/done.json", Done).get("time")
    return time


def run_here(
    tasks: Sequence[Task], store: Store, settings: Settings, left: Callable[[], float] = lambda: math.inf
) -> Iterator[tuple[Task, str]]:
    """Run tasks one after the other in this process. Yield each task with "", or with the reason of its failure.

    A failed task gets a failed.json and is not tried again. If an earlier process was killed during a task, the task counts as
    failed, because it might kill this process, too.

    Args:
        left: returns the seconds that remain. When none remain, no further task starts.
    """
    for task in tasks:
        if left() <= 0:
            return
        if store.exists(f"{task.folder}/failed.json"):
            continue
        error = ""
        if store.exists(f"{task.folder}/started.json"):
            error = "the process ended during this task"
        else:
            store.write_json(f"{task.folder}/started.json", {})
            try:
                run_task(task, store, settings)  # replaces the folder, so that started.json is gone
            except Exception as reason:  # a failed experiment must not stop the others
                error = f"{type(reason).__name__}: {reason}"
        if error:
            store.write_json(f"{task.folder}/failed.json", {"error": error})
        yield task, error


def run_task(task: Task, store: Store, settings: Settings) -> None:
    """Run one task in this process and write its result."""
    images, trained_at = load_images(store.uri, task.spec.data.checksum), trained(store, task.spec)
    torch.set_num_threads(settings.plan.threads)
    if settings.plan.device == "cpu":
        keep_large_buffers()
    if task.name == "reference":
        result = reference_result(task.spec.data, task.spec.sigma, images, settings)
    else:
        with store.fetched(f"models/{task.spec.spec_id}/model") as folder:
            model = load(folder, settings.plan.device).to(settings.plan.dtype)  # stored weights may be float64
        context = Context(images, settings.plan, settings.evaluation, settings.seed, settings.scale, settings.data_dir)
        result = get_experiment(task.name).run(model, task.spec, context)
    write_result(store, task, result, settings, trained_at)


def write_result(store: Store, task: Task, result: Result, settings: Settings, trained_at: float | None = None) -> None:
    """Write ``result.json`` and ``arrays.safetensors``: both of them, or neither.

    Write a number that does not exist (NaN or infinite) as null, and list its place in `undefined`. The report then says that
    the number cannot be computed.

    Args:
        trained_at: the time that identifies the weights (see `trained`).
    """
    undefined: list[list[str | int]] = []
    blob = {**_known(result.scalars, undefined), "settings": settings.key(task.name)}
    if task.name != "reference":
        blob["trained"] = trained_at
    if undefined:
        blob["undefined"] = undefined
    with store.folder(task.folder) as folder:
        (folder / "result.json").write_text(json.dumps(blob, indent=1, allow_nan=False))
        if result.arrays:
            arrays = {name: array.detach().float().cpu().contiguous() for name, array in result.arrays.items()}
            save_file(arrays, folder / "arrays.safetensors")


def _known(value: Any, undefined: list[list[str | int]], *path: str | int) -> Any:
    """Replace numbers that do not exist by None. Append their paths, such as ["rows", 3, "stderr"], to `undefined`."""
    if isinstance(value, dict):
        return {key: _known(each, undefined, *path, key) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each, undefined, *path, i) for i, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        undefined.append(list(path))
        return None
    return value


def reference_result(data: DataRef, sigma: float, images: ImageSet, settings: Settings) -> Result:
    """Compute the exact answers for a training set and a noise level, on the images and noise that models are measured with."""
    config = settings.evaluation
    measured = max(len(evaluation_images(images, split, config, data.train_images)) for split in ("train", "test"))
    if measured * data.train_images * config.draws > EXACT_PAIRS:
        config = dataclasses.replace(config, draws=1)
    plan = dataclasses.replace(settings.plan, precision="fp32")
    found = reference(images, sigma, config, plan, train_images=data.train_images)
    return Result({"data": dataclasses.asdict(data), "sigma": sigma, "draws": config.draws, **dataclasses.asdict(found)})
