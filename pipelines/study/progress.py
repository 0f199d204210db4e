"""The progress of the trainings: which models train, their epoch, loss and images per second, and the time left."""

import math
import os
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.cluster.cost_model import training_flops
from pipelines.executor.outcomes import outcome
from pipelines.files.formats import FailedJson, ProgressJson
from pipelines.files.store import Store
from pipelines.words import clock, name_of
from uvb.machine import usable_cpus
from uvb.spec import RunSpec
from uvb.training.state import steps_per_epoch

RUNNING_SECONDS = 30.0  # if a model's progress is older, the model is not shown as running
TASK_SECONDS = 0.2  # what a measurement takes besides its arithmetic
REST_SECONDS = 15.0  # for tables, figures, report
# Workers usually start in less than a minute, and the load stays below 3 per CPU. A higher load comes from other programs.
BUSY_AFTER, BUSY_LOAD = timedelta(minutes=1), 3.0


class TrainingProgress:
    """The state of the trainings, read from the study's files.

    Args:
        tasks: how many measurements follow.
        seconds: how long the measurements take; 0 if only their operations are known.
        operations: the measurements' floating point operations; 0 if `seconds` is given. An operation that takes four times as
            long as in the trainings counts four times.
    """

    def __init__(
        self, specs: Sequence[RunSpec], store: Store, tasks: int = 0, seconds: float = 0.0, operations: float = 0.0
    ) -> None:
        self.specs, self.store, self.tasks, self.seconds, self.operations = list(specs), store, tasks, seconds, operations
        self.began = datetime.now()
        self.flops = {spec.spec_id: training_flops(spec) for spec in specs}
        # The files of an earlier session tell how much is done, but not what runs now.
        self.now = {spec.spec_id: store.find_json(f"models/{spec.spec_id}/progress.json", ProgressJson) for spec in specs}
        # spec_id -> how often a training had been started before this session. A worker of this session counts one more.
        self.starts = {spec_id: found["starts"] for spec_id, found in self.now.items() if "starts" in found}
        self.since: dict[str, float] = {}  # spec_id -> the share of the training that was done when this session continued it
        self.outcome: dict[str, str] = {}  # spec_id -> done, failed or stopped
        self.told: set[str] = set()  # the workers' notes that were printed
        self.first: tuple[float, float] | None = None  # time, and operations gained, at this session's first progress

    def read(self) -> list[str]:
        """Read the files of all models without an outcome; return new lines to print."""
        lines: list[str] = []
        for spec in self.specs:
            if spec.spec_id in self.outcome:
                continue
            folder = f"models/{spec.spec_id}"
            now = self.store.find_json(f"{folder}/progress.json", ProgressJson)
            before = self.starts.get(spec.spec_id)
            ours = before is None or now.get("starts") != before  # otherwise an earlier session wrote `now`
            if now and ours and now != self.now[spec.spec_id]:
                self.now[spec.spec_id] = now
                start = now.get("start")
                steps = 0 if start in (None, "fresh") else int(start)
                self.since.setdefault(spec.spec_id, steps / (spec.recipe.epochs * steps_per_epoch(spec)))
                lines += [note for note in now.get("notes", []) if note not in self.told]
                self.told.update(now.get("notes", []))
            try:
                end = outcome(self.store, spec.spec_id)
            except OSError:  # the store did not answer; the next call asks again
                continue
            if end:
                self.outcome[spec.spec_id] = end
            if end == "failed":
                lines.append("failed: " + self.store.find_json(f"{folder}/failed.json", FailedJson).get("error", spec.label))
        return lines

    @property
    def running(self) -> list[tuple[RunSpec, dict[str, Any]]]:
        """The models that train now, each with its progress.json."""
        found = [(s, self.now[s.spec_id]) for s in self.specs if s.spec_id in self.since and s.spec_id not in self.outcome]
        return [(s, now) for s, now in found if now.get("images_per_s") and time.time() - now["time"] < RUNNING_SECONDS]

    def ended(self, specs: Sequence[RunSpec]) -> bool:
        """Whether each of `specs` has an outcome."""
        return all(spec.spec_id in self.outcome for spec in specs)

    def share(self, spec: RunSpec) -> float:
        """How much of a model's training is done, in [0, 1]."""
        now = self.now[spec.spec_id]
        if spec.spec_id in self.outcome:
            return 1.0
        if spec.spec_id in self.since and not now.get("images_per_s"):  # started again; `epoch` is still from before
            return self.since[spec.spec_id]
        return min(1.0, now.get("epoch", 0) / spec.recipe.epochs)

    def work(self) -> tuple[float, float]:
        """The floating point operations that are done, and those of all trainings."""
        return sum(self.flops[spec.spec_id] * self.share(spec) for spec in self.specs), sum(self.flops.values())

    def gained(self) -> float:
        """The floating point operations of this session. If a training failed or was stopped, its rest does not count."""
        made = 0.0
        for spec in self.specs:
            if (since := self.since.get(spec.spec_id)) is not None:
                ended = self.outcome.get(spec.spec_id) not in (None, "done")
                share = self.now[spec.spec_id].get("epoch", 0) / spec.recipe.epochs if ended else self.share(spec)
                made += self.flops[spec.spec_id] * max(0.0, share - since)
        return made

    def seconds_left(self) -> float | None:
        """Seconds until the whole study ends, at the pace of this session's trainings; None while the pace is not known."""
        done, total = self.work()
        if self.first is None:
            if self.running:
                self.first = (time.monotonic(), self.gained())
            return None
        elapsed, gained = time.monotonic() - self.first[0], self.gained() - self.first[1]
        if elapsed < 3 or gained <= 0:
            return None
        after = self.seconds + self.tasks * TASK_SECONDS + REST_SECONDS
        return (total - done + self.operations) * elapsed / gained + after

    def waiting(self) -> str:
        """Say since when workers have been starting. If this takes long and the machine is busy, say that, too."""
        long = datetime.now() - self.began > BUSY_AFTER
        busy = long and os.getloadavg()[0] > BUSY_LOAD * usable_cpus()
        return f"starting workers since {self.began:%H:%M:%S}" + ("; other programs keep this machine busy" if busy else "")

    def view(self) -> tuple[Group, str]:
        """The live view, and its content as one line."""
        done, total = self.work()
        table = Table.grid(padding=(0, 2))
        parts = []
        for spec, now in self.running:
            epoch = now["epoch"]
            loss = "" if now.get("loss") is None else f"loss {now['loss']:.3f}"
            said = f"epoch {epoch:.1f}/{spec.recipe.epochs}", loss, f"{now['images_per_s']:,.0f} images/s"
            table.add_row(Text(name_of(spec), "bold"), ProgressBar(spec.recipe.epochs, epoch, width=24), *said)
            parts.append(f"{name_of(spec)} " + ", ".join(said))
        left = self.seconds_left()
        when = "" if left is None else f"about {clock(left)} left"
        if left is None and not self.running and len(self.outcome) < len(self.specs):
            when = self.waiting()
        head = f"{len(self.outcome)}/{len(self.specs)} models trained"
        share = f" ({math.floor(100 * done / total)}%)" if total else ""
        table.add_row(Text(head, "bold"), ProgressBar(1.0, done / total if total else 1.0, width=24), when)
        return Group(table), "; ".join(filter(None, [*parts, head + share, when]))


def tasks_view(done: int, total: int, seconds: float) -> tuple[Text, str]:
    """The live view of the measurements, and its content as one line."""
    left = f", about {clock(seconds / done * (total - done) + REST_SECONDS)} left" if done else ""
    line = f"{done}/{total} measurements done{left}"
    return Text(line), line
