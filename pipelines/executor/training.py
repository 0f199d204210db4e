"""Train one model and write everything about it into its folder, ``models/<spec_id>/``.

A process may be killed at any moment: the next process continues the training from the checkpoints in the folder.
"""

import dataclasses
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

import uvb
from pipelines.files.formats import Curves, ProgressJson
from pipelines.files.masking import masked
from pipelines.files.store import Store
from pipelines.study.images import load_images, save_images
from pipelines.study.provenance import cpu_name, git_revision, versions
from uvb.accelerate.cpu import flush_subnormals
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models import get_model
from uvb.models.capacity import count_parameters
from uvb.models.io import save_model
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.loop import Progress, fit
from uvb.training.parallel import first_of_all_ranks, rank_and_world
from uvb.training.state import DamagedCheckpoint, TrainState

KEPT_STATES = 2  # checkpoints of a training; if the newest is damaged, the one before it is used
PROGRESS_SECONDS = 1.0  # progress and curves are written at most this often
RETRY_SECONDS = 5.0  # wait before trying again to write a checkpoint
STUCK_LIMIT = 8  # after this many crashes at the same place, give up the model; the other models continue
DIVERGED = 1e30  # the loss that a scheduler gets for a training without a loss

Report = Callable[[dict[str, Any]], Any]


def lay_out(store: Store, images: ImageSet, plans: Mapping[RunSpec, Plan]) -> None:
    """Write what trainings need: the images, and spec.json and plan.json of each model. Keep files that are already there."""
    save_images(store, images)
    for spec, plan in plans.items():
        for name, blob in (("spec", spec.to_json()), ("plan", plan.to_json())):
            if not store.exists(f"models/{spec.spec_id}/{name}.json"):
                store.write_json(f"models/{spec.spec_id}/{name}.json", blob)


class Training:
    """One model's training, as each of its workers runs it. Rank 0 decides where to start, and writes the checkpoints.

    Args:
        report: called on every rank after every `report_epochs` epochs (0: never) with spec_id, epoch and loss.
        watch: called with each `Progress` of `fit`. If it returns True, the training saves a checkpoint and ends as "paused".
    """

    def __init__(
        self,
        spec: RunSpec,
        plan: Plan,
        store: Store,
        checkpoint_seconds: float,
        report_epochs: int = 0,
        report: Report | None = None,
        watch: Callable[[Progress], bool] | None = None,
    ) -> None:
        self.spec, self.plan, self.study = spec, plan, store
        self.store = Store(store.join("models", spec.spec_id))
        self.checkpoint_seconds = checkpoint_seconds
        self.report, self.report_epochs, self.watch = report, report_epochs, watch
        self.rank = rank_and_world()[0]
        self.notes: list[str] = []
        self.written = self.next_save = 0.0  # times: of the last progress.json, and of the next checkpoint
        self.stored_epochs = 0  # how many epochs curves.json has
        self.history: dict[str, Any] = {}  # fields of progress.json: how often, where and when training started

    def run(self) -> dict[str, Any]:
        """Train to the end, from the newest checkpoint in the folder.

        Return ``outcome`` ("done", "failed" or "paused"), ``epoch`` and ``loss``. After a `UserError` the outcome is "failed".
        Other errors are raised, so that the next process tries again.
        """
        flush_subnormals()
        start = agreed(self._look() if self.rank == 0 else None)
        if start in ("done", "failed"):
            return {"outcome": start, "epoch": self.spec.recipe.epochs, "loss": self._last_loss()}
        refused = ""
        try:
            images = load_images(self.study.uri, self.spec.data.checksum, self.spec.data.train_images)
            state = self._load(start)
        except UserError as error:
            refused = str(error)
        if refused := first_of_all_ranks(refused):  # all must end together: each waits for the others
            return self._failed(refused)
        try:
            if not self._train(state, images):
                return {"outcome": "paused", "epoch": state.epoch, "loss": DIVERGED}
        except UserError as error:  # every rank raises it: workers exchange their losses, and the errors in `prepare`
            if error.__cause__ and not self.rank:
                traceback.print_exception(error.__cause__)  # for the model's author, who reads the worker's log
            return self._failed(str(error))
        if self.rank == 0:
            try:
                self._finish(state)
            except UserError as error:  # e.g. a full disk; the same command continues from the last checkpoint
                return self._failed(str(error))
        return {"outcome": "done", "epoch": state.epoch, "loss": state.curves[-1].test_loss}

    def _train(self, state: TrainState, images: ImageSet) -> bool:
        """Fit `state`. Return False if `watch` asked for a pause."""
        self.next_save = time.monotonic() + self.checkpoint_seconds
        with warnings.catch_warnings():
            warnings.showwarning = self._warned
            warnings.filterwarnings("always", category=UserWarning, module="uvb")  # warn again for each model of a process
            for progress in fit(self.spec, self.plan, state, images):
                self._pulse(progress, state)
                if self.watch and agreed(self.watch(progress)) and not state.finished:
                    if self.rank == 0:
                        self._try(lambda: self._save(state))
                        self._try(lambda: self.store.write_json("curves.json", curves(state)))
                    return False
        return True

    def _look(self) -> str:
        """Return "done" or "failed" if the training has ended. Otherwise return the newest whole checkpoint, or "fresh"."""
        if self.store.exists("done.json"):
            self._try(lambda: self.store.remove("state"))  # a process that was killed right after done.json leaves this folder
            return "done"
        if self.store.exists("failed.json"):  # by this command, since a command first removes old ones
            return "failed"
        before = self.store.find_json("progress.json", ProgressJson)
        stuck, where = before.get("stuck", 0) + 1, masked(self.store.join("state"))
        if stuck > STUCK_LIMIT:
            line = f"its workers died {stuck - 1} times before their first step; see Ray's logs, or remove {where}"
            return self._failed(line)["outcome"]
        # Count before reading a checkpoint: reading a damaged one may kill this process, and that must count too.
        self._try(lambda: self.store.write_json("progress.json", before | {"stuck": stuck}))
        try:
            start = self._newest_state() or "fresh"
        except UserError as error:
            return self._failed(str(error))["outcome"]
        except OSError as error:  # perhaps the store is unreachable for a moment, so let the next worker try
            if stuck < STUCK_LIMIT:
                raise
            line = f"its checkpoints cannot be read ({error}); make them readable, or remove {where}"
            return self._failed(line)["outcome"]
        if before.get("start") != start:  # the last start was from another checkpoint, so count anew
            stuck = 0
        starts, began = before.get("starts", 0) + 1, before.get("began", time.time())
        self.history = {"starts": starts, "start": start, "stuck": stuck, "began": began}
        if starts > 1:
            place = "its beginning" if start == "fresh" else f"step {int(start)}"
            self.notes.append(f"{self.spec.label}: continues from {place} (start {starts})")
        if stuck >= STUCK_LIMIT:
            return self._failed(f"its workers died {stuck} times at the same place ({start}); see Ray's logs")["outcome"]
        now = {"epoch": before.get("epoch", 0), "loss": before.get("loss"), "images_per_s": None}
        self._try(lambda: self._write_progress(now))
        return start

    def _newest_state(self) -> str | None:
        for name in reversed(self.store.list("state")):
            try:
                with self.store.fetched(f"state/{name}") as folder:
                    TrainState.load(folder, self.spec, self.plan)
                return name
            except (DamagedCheckpoint, FileNotFoundError) as error:
                self.notes.append(f"{self.spec.label}: checkpoint {name} is not used ({error}); the one before it is tried")
        return None

    def _load(self, start: str) -> TrainState:
        if start == "fresh":
            return TrainState.fresh(self.spec, self.plan)
        with self.store.fetched(f"state/{start}") as folder:
            return TrainState.load(folder, self.spec, self.plan)

    def _pulse(self, progress: Progress, state: TrainState) -> None:
        """After an epoch, report its loss. From time to time, write the progress and save a checkpoint."""
        due = self.report_epochs and not state.finished and state.epoch % self.report_epochs == 0
        if self.report and progress.metrics and due:
            if not self.rank:  # write first, because a scheduler may stop this training as soon as it has the loss
                self._try(lambda: self.store.write_json("curves.json", curves(state)))
            self.report({"spec_id": self.spec.spec_id, "epoch": state.epoch, "loss": progress.metrics.test_loss})
        now = time.monotonic()
        if self.rank and now - self.written >= PROGRESS_SECONDS:
            self.written = now
            self._try(lambda: self.store.write_json(f"workers/{self.rank}.json", machine()))
        if self.rank or state.finished:
            return
        if now - self.written >= PROGRESS_SECONDS:
            self.written = now
            at = {"epoch": progress.epoch + progress.step / progress.steps, "loss": progress.loss}
            self._try(lambda: self._write_progress({**at, "images_per_s": progress.images_per_second}))
            epochs = len(state.curves)
            if epochs > self.stored_epochs and self._try(lambda: self.store.write_json("curves.json", curves(state))):
                self.stored_epochs = epochs
        if now >= self.next_save:
            saved = self._try(lambda: self._save(state))
            wait = self.checkpoint_seconds if saved else min(RETRY_SECONDS, self.checkpoint_seconds)
            self.next_save = time.monotonic() + wait

    def _try(self, write: Callable[[], None]) -> bool:
        """Call `write`. If it fails, note the error and return False, so that the training continues and writes later."""
        try:
            write()
        except (UserError, OSError) as error:
            self.notes = [note for note in self.notes if note != str(error)] + [str(error)]
            return False
        return True

    def _save(self, state: TrainState) -> None:
        with self.store.folder(f"state/{state.global_step:09d}") as folder:
            state.save(folder, self.plan)
        # Checkpoints of later steps do not count. This training would have begun from one of them, if it were not damaged.
        past = [name for name in self.store.list("state") if int(name) <= state.global_step]
        for name in past[:-KEPT_STATES]:
            self.store.remove(f"state/{name}")

    def _finish(self, state: TrainState) -> None:
        """Write the model and its curves. Then write done.json."""
        done = {
            "parameters": count_parameters(state.model),
            "epochs": state.epoch,
            "seconds": state.seconds,
            "images_per_s": self.spec.data.train_images * state.epoch / state.seconds,
            "wall_seconds": time.time() - self.history["began"],
            "restarts": self.history["starts"] - 1,
            "time": time.time(),
            "host": socket.gethostname(),
            "device": device_name(self.plan),
            "plan": self.plan.to_json(),
            "versions": versions("torch", "ray"),
            "git": git_revision(),
            "code": get_model(self.spec.model).code,
            "cpu": cpu_name(),
        }
        last = dataclasses.asdict(state.curves[-1])
        card = {"label": self.spec.label, "parameters": done["parameters"], "last_epoch": last, "versions": done["versions"]}
        with self.store.folder("model") as folder:
            save_model(state.averaged, self.spec, folder, card)
        self.store.write_json("curves.json", curves(state))
        self._write_progress({"epoch": state.epoch, "loss": last["train_loss"], "images_per_s": last["images_per_second"]})
        self.store.write_json("done.json", done)
        self._try(lambda: self.store.remove("state"))

    def _last_loss(self) -> float:
        """The test loss of the last epoch, or `DIVERGED`."""
        rows = self.store.find_json("curves.json", Curves).get("rows", [])
        loss = rows[-1]["test_loss"] if rows and self.store.exists("done.json") else None
        return DIVERGED if loss is None else loss

    def _failed(self, line: str) -> dict[str, Any]:
        if self.rank == 0:
            if self.spec.label not in line:
                line = f"{self.spec.label}: {line}"
            blob = {"error": line, "time": time.time(), "starts": self.history.get("starts", 1)}
            self._try(lambda: self.store.write_json("failed.json", blob))
        return {"outcome": "failed", "epoch": self.spec.recipe.epochs, "loss": DIVERGED}

    def _write_progress(self, now: dict[str, Any]) -> None:
        self.store.write_json("progress.json", {**self.history, **now, **machine(), "notes": self.notes})

    def _warned(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        """Note a warning of `uvb` in progress.json. Drop warnings of libraries. This method replaces `warnings.showwarning`."""
        if category is UserWarning and Path(uvb.__file__).parent in Path(filename).parents:
            self.notes.append(f"{self.spec.label}: {message}")


def curves(state: TrainState) -> dict[str, Any]:
    """The content of curves.json: one row per epoch, counted from 1."""
    rows = [dataclasses.asdict(row) for row in state.curves]
    for row in rows:
        row.update(epoch=row["epoch"] + 1, images_per_s=row.pop("images_per_second"))
    return {"rows": rows}


def machine() -> dict[str, Any]:
    """The present load of this worker's machine, and the time."""
    busy = {"cpu_percent": psutil.cpu_percent(), "memory_percent": psutil.virtual_memory().percent}
    return {"time": time.time(), "machine": busy}


def agreed(value: Any) -> Any:
    """Return the value of rank 0 on every rank."""
    box = [value]
    if rank_and_world()[1] > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def device_name(plan: Plan) -> str:
    return torch.cuda.get_device_name() if plan.device == "cuda" else "cpu"
