"""Types for the content of a study's JSON files, and a function that reads such a file and checks it.

A file may have fields that its type does not name. The code that reads such a field must check it. Most fields are optional,
since older versions and killed processes may have left them out.
"""
# ruff: noqa: UP013  # keep small types in one line

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Required, TypedDict

import msgspec

from uvb.decoding import decoded, parsed
from uvb.errors import UserError
from uvb.regular import regular

# ----------------------------------------------------------------------------------------------------- the study as a whole

Stage = TypedDict("Stage", {"name": str, "seconds": float})
Settings = dict[str, str]  # tasks/settings.json: task -> hash of the settings with which the last command measures
MlflowJson = TypedDict("MlflowJson", {"runs": dict[str, str]}, total=False)  # spec_id -> run id


class StudyJson(TypedDict, total=False):
    """study.json. `specs` are the spec_ids that the last command asked for."""

    name: str
    specs: list[str]
    config: dict[str, Any]
    provenance: dict[str, Any]


class Timings(TypedDict, total=False):
    """timings.json: the seconds of each stage, summed over all runs of the command that were not killed."""

    stages: list[Stage]
    total_seconds: float
    sessions: int


class HolderJson(TypedDict):
    """lock.json: which driver runs the study."""

    host: str
    place: str  # the container, and the boot of its machine, in which `pid` is valid
    pid: int
    started: float  # unix time at which the process began
    since: str  # UTC, as text
    beat: float  # a counter that grows while the driver lives; 0 if a lock of the file system is used
    token: str  # random; each holder has its own


# ------------------------------------------------------------------------------------------------ a model: models/<spec_id>/

DataJson = TypedDict("DataJson", {"name": str, "checksum": str, "shape": list[int], "train_images": int})
RecipeJson = TypedDict("RecipeJson", {"name": str, "epochs": int, "batch_size": int, "learning_rate": float})
FailedJson = TypedDict("FailedJson", {"error": str})


class SpecJson(TypedDict):
    """The fields of spec.json that tables need. `RunSpec.from_json` reads all fields."""

    data: DataJson
    model: str
    sigma: float
    objective: str
    recipe: RecipeJson
    widths: dict[str, Any]
    activation: str
    seed: int


class ProgressJson(TypedDict, total=False):
    """progress.json: how much of a training is done, and how often it was started."""

    starts: int  # how often the training was begun
    start: str | None  # the checkpoint of the last start, or "fresh"
    stuck: int  # how often the workers died after a start from this checkpoint
    began: float  # unix time of the first start
    epoch: float  # how many epochs are done, with the part of the present one
    loss: float | None
    images_per_s: float | None
    time: float  # unix time at which the file was written
    notes: list[str]  # lines for the user: restarts, warnings, failed writes


class CurveRow(TypedDict, total=False):
    """One epoch, counted from 1. A quantity that was not measured is null. `EpochMetrics` says what each quantity is."""

    epoch: int
    train_loss: float | None
    test_loss: Required[float | None]
    train_probe: float | None
    kl: float | None
    recon: float | None
    images_per_s: float | None
    seconds: float | None
    time: float | None


Curves = TypedDict("Curves", {"rows": list[CurveRow]}, total=False)  # curves.json


class Done(TypedDict, total=False):
    """done.json: the training has ended. `code` is a hash of the model's source."""

    parameters: int
    seconds: float
    time: float
    code: str | None


# -------------------------------------------------------------------------------------- an experiment: tasks/<name>/<spec_id>/

LossRow = TypedDict("LossRow", {"split": Literal["train", "test"], "estimator": str, "loss": float, "stderr": float})
LossesJson = TypedDict("LossesJson", {"rows": list[LossRow]})
QuantityRow = TypedDict("QuantityRow", {"quantity": str, "value": float, "stderr": float})  # a mean over the test set
InternalsJson = TypedDict("InternalsJson", {"rows": list[QuantityRow]})
ReferenceJson = TypedDict("ReferenceJson", {"data": DataJson, "sigma": float, "floor": float, "nonparametric": float})


class VariantJson(TypedDict, total=False):
    """Measures of a walk's jumps x̂(y), or of its second jumps x̂(x̂(y))."""

    classes_visited: int | None
    steps_to_all: int | None
    iat: float | None
    ess_per_step: float | None
    split_rhat: float | None
    transition: list[list[float]] | None
    moves: list[tuple[int, int, int]]  # replaces `transition` if there are many classes: from, to, how often


class WalkJson(TypedDict):
    """result.json of `walk_jump`, and of the experiments `walk_jump_<sampler>`."""

    sampler: str
    delta: float
    steps: int
    steps_per_jump: int
    chains: int
    variants: dict[str, VariantJson]


RESULTS: dict[str, Any] = {"losses": LossesJson, "internals": InternalsJson, "reference": ReferenceJson, "walk_jump": WalkJson}


def result_format(task: str) -> Any:
    """The type of a task's result.json: `WalkJson` for every sampler, any object for a task that no table reads."""
    return RESULTS.get("walk_jump" if task.startswith("walk_jump") else task, dict[str, Any])


# The place of a number that was NaN or infinite, e.g. ["rows", 3, "stderr"]. The file has null there, `read_object` NaN.
_Place = Annotated[list[str | int], msgspec.Meta(min_length=1)]
_Undefined = TypedDict("_Undefined", {"undefined": list[_Place]}, total=False)


def read_object(path: Path, kind: Any = dict[str, Any]) -> dict[str, Any]:
    """Read the JSON object in a file and check it against the type `kind`. Return {} if there is no such file.

    Raises:
        UserError: the file is not a regular file, cannot be read, is not JSON, has content of another type, or has no null at a
            place that its list `undefined` names.
    """
    what = f"{path} is not a valid file of a study"
    try:
        blob = parsed(regular(path).read_bytes(), str(path))
        for *parents, last in decoded(blob, _Undefined, what).get("undefined", ()):
            place = blob
            for key in parents:
                place = place[key]
            if place[last] is not None:
                raise LookupError(f"{last!r} is not null")
            place[last] = math.nan
        decoded(blob, kind, what)
        return dict(blob)
    except FileNotFoundError:
        return {}
    except (LookupError, TypeError) as error:
        raise UserError(
            f"{path}: the list `undefined` names a place that has no null ({error}): delete the file and run the study again"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable, or delete it") from None
    except UserError as error:
        raise UserError(f"{error}: delete it and run the study again") from None
