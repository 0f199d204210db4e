"""What a study's JSON files hold, as types, and the one function that reads such a file and checks it.

Fields that are not named here may be present; nothing reads them without a check of its own.
"""

import json
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec

from uvb.errors import UserError

Split = Literal["train", "test"]


class Stage(TypedDict):
    """A stage of the study and how long it took."""

    name: str
    seconds: float


class Timings(TypedDict, total=False):
    """timings.json."""

    stages: list[Stage]
    total_seconds: float


class StudyJson(TypedDict, total=False):
    """study.json. `specs` are the spec_ids that the last command asked for."""

    name: str
    specs: list[str]
    config: dict[str, Any]
    provenance: dict[str, Any]


class MlflowJson(TypedDict, total=False):
    """mlflow.json: spec_id -> run id."""

    runs: dict[str, str]


class CurveRow(TypedDict, total=False):
    """One epoch, counted from 1. Null: not measured."""

    epoch: int
    train_loss: float | None
    test_loss: float | None
    train_probe: float | None
    kl: float | None
    recon: float | None
    images_per_s: float | None
    seconds: float | None
    time: float | None


class Curves(TypedDict, total=False):
    """curves.json."""

    rows: list[CurveRow]


class Done(TypedDict, total=False):
    """done.json. That it is there means: trained to the end."""

    parameters: int
    seconds: float
    time: float


class DataJson(TypedDict):
    """The images that a spec names."""

    name: str
    checksum: str
    shape: list[int]
    train_images: int


class RecipeJson(TypedDict):
    """The part of a recipe that tables show."""

    name: str
    epochs: int
    batch_size: int
    learning_rate: float


class SpecJson(TypedDict):
    """spec.json, as far as tables need it. `RunSpec.from_json` reads all of it."""

    data: DataJson
    model: str
    sigma: float
    objective: str
    recipe: RecipeJson
    widths: dict[str, Any]
    activation: str
    seed: int


class LossRow(TypedDict):
    """One estimator's loss on one split."""

    split: Split
    estimator: str
    loss: float
    stderr: float


class LossesJson(TypedDict):
    """result.json of `losses`."""

    rows: list[LossRow]


class QuantityRow(TypedDict):
    """One mean over the test set."""

    quantity: str
    value: float
    stderr: float


class InternalsJson(TypedDict):
    """result.json of `internals`."""

    rows: list[QuantityRow]


class ReferenceJson(TypedDict):
    """result.json of `reference`. Older ones lack some of the numbers."""

    data: DataJson
    sigma: float
    floor: float
    nonparametric: float


class VariantJson(TypedDict, total=False):
    """What is measured of the jumps of a walk."""

    classes_visited: int | None
    steps_to_all: int | None
    iat: float | None
    ess_per_step: float | None
    split_rhat: float | None
    transition: list[list[float]] | None


class WalkJson(TypedDict):
    """result.json of `walk_jump` and of other samplers' walks."""

    sampler: str
    delta: float
    steps: int
    steps_per_jump: int
    chains: int
    variants: dict[str, VariantJson]


RESULTS: dict[str, Any] = {"losses": LossesJson, "internals": InternalsJson, "reference": ReferenceJson, "walk_jump": WalkJson}
Settings = dict[str, str]  # tasks/settings.json: task -> hash of how the last command measures


def result_format(task: str) -> Any:
    """The type of a task's result.json: the walk's for every sampler's walk, any object for tasks that no table reads."""
    return RESULTS.get("walk_jump" if task.startswith("walk_jump") else task, dict[str, Any])


def read_object(path: Path, kind: Any = dict[str, Any]) -> dict[str, Any]:
    """The JSON object in a file, checked against the type `kind`; {} where there is no such file.

    Raises:
        UserError: the file is no regular file, cannot be read, is no JSON, or holds something else. One line.
    """
    if not _is_there(path):
        return {}
    blob = _read(path)
    try:
        if not isinstance(blob, dict):
            raise msgspec.ValidationError(f"Expected `object`, got `{type(blob).__name__}`")
        msgspec.convert(blob, kind, strict=True)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is not as a study writes it ({error}): delete it and run the study again") from None
    return blob


def _is_there(path: Path) -> bool:
    """Whether there is such a file. Raises UserError for a pipe or the like, which would wait for its writer for ever."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file: delete it and run the study again")
    return path.exists()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} is not valid JSON ({reason}): delete it and run the study again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable") from None
