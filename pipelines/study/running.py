"""The state that the stages of a running study share."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.files.store import Store
from pipelines.study.screen import Screen
from uvb.data import ImageSet
from uvb.spec import RunSpec

if TYPE_CHECKING:
    from pipelines.cluster.driver import GroupRunner

POLL_SECONDS = (1.0, 5.0)  # between two reads of progress files: in a local folder, in an object store


@dataclass
class Running:
    """A study in its folder: what is trained on which images, and what has happened so far.

    Attributes:
        checks: functions that raise if the study cannot go on because its lock is lost, MLflow refuses it, or Ray has died.
        failures: a line for each model or measurement that failed, while the study went on.
        stages: the seconds of each stage of this session.
        runner: trains the latest groups of models in a thread, which may still run.
        trained: whether the training stage has ended.
        earlier: the content of timings.json, written by earlier sessions.
    """

    images: ImageSet
    specs: list[RunSpec]
    store: Store
    screen: Screen = field(default_factory=Screen)
    checks: Sequence[Callable[[], None]] = ()
    failures: list[str] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    runner: "GroupRunner | None" = None
    trained: bool = False
    started: float = field(default_factory=time.monotonic)
    earlier: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as the stage `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.monotonic() - started

    def check(self) -> None:
        """Raise if the study cannot go on. Call this from time to time while workers run."""
        for check in self.checks:
            check()

    @property
    def poll_seconds(self) -> float:
        return POLL_SECONDS[0 if self.store.local_path else 1]

    def folder(self, spec: RunSpec) -> str:
        """The folder of a model."""
        return f"models/{spec.spec_id}"

    def write_timings(self) -> None:
        """Write timings.json: the seconds of each stage, summed over all sessions that were not killed."""
        seconds = {stage["name"]: stage["seconds"] for stage in self.earlier.get("stages", [])}
        for name, value in self.stages.items():
            seconds[name] = seconds.get(name, 0.0) + value
        total = self.earlier.get("total_seconds", 0.0) + time.monotonic() - self.started
        stages = [{"name": name, "seconds": value} for name, value in seconds.items()]
        sessions = self.earlier.get("sessions", 0) + 1
        self.store.write_json("timings.json", {"stages": stages, "total_seconds": total, "sessions": sessions})
