"""Read a study's folder for its tables, figures and report. docs/file_formats.md describes the files."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pipelines.files.formats import Curves, Done, MlflowJson, Settings, SpecJson, StudyJson, Timings, read_object, result_format
from pipelines.files.names import plain_name
from uvb.atomic import replacing
from uvb.errors import UserError
from uvb.regular import regular
from uvb.spec import RunSpec

WALK = "walk_jump"  # the task of the paper's sampler; the task of another sampler is walk_jump_<name>


@dataclass(frozen=True)
class Model:
    """One folder of `models/`."""

    spec: RunSpec
    done: Mapping[str, Any] | None  # None until its training has ended
    curves: list[dict[str, Any]]
    plan: Mapping[str, Any]

    @property
    def spec_id(self) -> str:
        return self.spec.spec_id


@dataclass(frozen=True)
class Result:
    """One folder of `tasks/<name>/`."""

    key: str  # the name of the folder: the spec_id of the measured model, except for the task "reference"
    values: Mapping[str, Any]
    folder: Path

    @property
    def arrays(self) -> "Arrays":
        """The task's arrays; empty if it wrote none."""
        return Arrays(self.folder / "arrays.safetensors")


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of one file, by name. Each access reads the array from the file, so that none stays in memory.

    Raises:
        UserError: the file is damaged or not a regular file. Every access raises this.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        with safe_open(self.path, "np") as file:
            return np.asarray(file.get_tensor(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def names(self) -> list[str]:
        """The arrays' names, sorted."""
        if not self.path.exists():
            return []
        try:
            with safe_open(regular(self.path), "np") as file:
                return sorted(file.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.path} is damaged ({error}): delete its folder and run the study again") from None


@dataclass(frozen=True)
class StudyFiles:
    """A study's folder on this machine. All lists are sorted, so that equal files give equal tables and figures."""

    root: Path

    def __post_init__(self) -> None:
        if not (self.root / "models").is_dir():
            raise UserError(f"{self.root} is not a study: it has no models/ folder; give a folder that full_study.py wrote")

    @cached_property
    def study(self) -> dict[str, Any]:
        """The content of study.json; {} if there is none."""
        return read_object(self.root / "study.json", StudyJson)

    @property
    def name(self) -> str:
        """The study's name in study.json, or the folder's name if study.json has none.

        Raises:
            UserError: the name is not plain, so a path with it could lead out of its folder.
        """
        name = str(self.study.get("name") or self.root.resolve().name)
        return plain_name(name, f"correct it in {self.root / 'study.json'}")

    @property
    def asked(self) -> frozenset[str]:
        """The spec_ids that the last command asked for. The folder may also have models of earlier commands."""
        return frozenset(self.study.get("specs", ()))

    @property
    def asked_models(self) -> list[Model]:
        """The models that the last command asked for; all models if study.json names none."""
        return [m for m in self.models.values() if m.spec_id in self.asked] or list(self.models.values())

    @cached_property
    def superseded(self) -> frozenset[str]:
        """The spec_ids of models of older data: the last command used other images under the same data set name."""
        data = {spec_id: model.spec.data for spec_id, model in self.models.items()}
        now = {each.name: each.checksum for spec_id, each in data.items() if spec_id in self.asked}
        return frozenset(spec_id for spec_id, each in data.items() if each.name in now and now[each.name] != each.checksum)

    @cached_property
    def timings(self) -> dict[str, Any]:
        return read_object(self.root / "timings.json", Timings)

    @cached_property
    def run_ids(self) -> dict[str, str]:
        return dict(read_object(self.root / "mlflow.json", MlflowJson).get("runs", {}))

    @cached_property
    def models(self) -> dict[str, Model]:
        """spec_id -> model, for every model that has a spec.json, even if its training has not ended."""
        found: dict[str, Model] = {}
        for folder in _folders(self.root / "models"):
            blob = read_object(folder / "spec.json", SpecJson)
            if not blob:
                continue
            done = read_object(folder / "done.json", Done) or None
            curves = read_object(folder / "curves.json", Curves).get("rows", [])
            try:
                spec = RunSpec.from_json(blob)
            except UserError as error:
                if self.asked and folder.name not in self.asked:  # perhaps an earlier version of this code wrote the file
                    continue
                raise UserError(f"{folder / 'spec.json'}: {error}; choose another --study, or remove that folder") from None
            found[spec.spec_id] = Model(spec, done, curves, read_object(folder / "plan.json"))
        return dict(sorted(found.items()))

    def results(self, task: str) -> dict[str, Result]:
        """The finished results of a task, by key. Each file is read once."""
        if task not in self._results:
            folders = [f for f in _folders(self.root / "tasks" / task) if (f / "result.json").exists()]
            values = {f: read_object(f / "result.json", result_format(task)) for f in folders}
            self._results[task] = {f.name: Result(f.name, found, f) for f, found in values.items()}
        return self._results[task]

    @cached_property
    def _results(self) -> dict[str, dict[str, Result]]:
        """The results that `results` has read so far: task -> key -> result."""
        return {}

    def of_models(self, task: str) -> Iterator[tuple[Model, Result]]:
        """The task's results with their models, in the order of data set, model, sigma, seed.

        Leave out superseded models, and results that were measured with earlier weights, or with other settings (images, noise
        draws, seed, scale, precision, device) than those of the last command.
        """
        known = self.models.keys() - self.superseded
        settings = read_object(self.root / "tasks" / "settings.json", Settings).get(task)
        found = []
        for key, result in self.results(task).items():
            same_settings = settings is None or result.values.get("settings") == settings
            if key in known and same_settings and _is_of(result, self.models[key]):
                found.append((self.models[key], result))
        yield from sorted(found, key=lambda pair: order(pair[0].spec))

    @property
    def kept(self) -> bool:
        """Whether this is a copy made by `keep.py`. Such a copy has no images and no arrays."""
        return not (self.root / "data").exists() and next(self.root.glob("tasks/*/*/arrays.safetensors"), None) is None

    def left_out(self, task: str) -> int:
        """How many results of a task `of_models` leaves out, not counting superseded models."""
        known = (self.results(task).keys() & self.models.keys()) - self.superseded
        return len(known) - len(list(self.of_models(task)))

    def walks(self) -> Iterator[tuple[str, Model, Result]]:
        """Yield (suffix, model, result) of each walk. The suffix names the sampler: "" is the paper's, "_baoab" is another."""
        for folder in _folders(self.root / "tasks"):
            if folder.name == WALK or folder.name.startswith(f"{WALK}_"):
                for model, result in self.of_models(folder.name):
                    yield folder.name.removeprefix(WALK), model, result


def _is_of(result: Result, model: Model) -> bool:
    """Whether a result was measured with the model's present weights.

    `trained` is the time at which the training of the measured weights ended. Old results lack it, and count as measured with
    the present weights.
    """
    return "trained" not in result.values or (model.done is not None and result.values["trained"] == model.done.get("time"))


def order(spec: RunSpec) -> tuple[Any, ...]:
    """The sort key of models in reports: data set, model (UVB, DEEN and both VAEs first, the others by name), sigma, seed."""
    rank = {"uvb": 0, "deen": 1, "vae": 2, "sigma_vae": 3}.get(spec.model, 9)  # 9: after these four
    return (spec.data.name, rank, spec.model, spec.sigma, spec.seed, spec.spec_id)


def write_json(path: Path, blob: Any) -> Path:
    """Write a JSON file, whole or not at all."""
    return write(path, json.dumps(blob, indent=1, ensure_ascii=False).encode())


def write(path: Path, content: bytes) -> Path:
    """Write a file, whole or not at all. A power cut may lose it, but it can be made again."""
    try:
        with replacing(path, durable=False) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from None
    return path


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
