"""What trainings and drivers tell one another through small files in the study's folder, as types.

Fields are optional, since a worker of an older version, or one that was killed, may have left some out.
"""

from typing import TypedDict


class ProgressJson(TypedDict, total=False):
    """models/<spec_id>/progress.json: how a training stands, and how often it was started."""

    starts: int
    start: str | None
    stuck: int
    began: float
    epoch: float
    loss: float | None
    images_per_s: float | None
    time: float
    notes: list[str]


class CurveRow(TypedDict):
    """One epoch, as far as the worker reads it back."""

    test_loss: float


class CurvesJson(TypedDict):
    """models/<spec_id>/curves.json."""

    rows: list[CurveRow]


class DoneJson(TypedDict, total=False):
    """models/<spec_id>/done.json, as far as the driver reads it."""

    time: float
    code: str | None


class FailedJson(TypedDict):
    """models/<spec_id>/failed.json, as far as the driver reads it."""

    error: str


class StageJson(TypedDict):
    """One stage of a study and how long it took."""

    name: str
    seconds: float


class TimingsJson(TypedDict, total=False):
    """timings.json: the stages of all sessions that ended by themselves."""

    stages: list[StageJson]
    total_seconds: float
    sessions: int


class HolderJson(TypedDict):
    """lock.json: who runs the study."""

    host: str
    place: str
    pid: int
    started: float
    since: str
    beat: float
    token: str
