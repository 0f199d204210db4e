"""Training under Ray: Tune runs groups of models, a group is one TorchTrainer, which trains its models in turn.

What a worker leaves in ``models/<spec_id>/`` is the truth: checkpoints, progress, curves, the model, and ``done.json``
last. So a worker, a trial, a node or the driver may die at any moment; whoever comes next goes on from there.
"""

import dataclasses
import os
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch
import torch.distributed as dist
from ray import train, tune
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.tune.integration.ray_train import TuneReportCallback

import uvb
from pipelines.cli import TUNE_THREAD
from pipelines.cluster.groups import Group
from pipelines.cluster.layout import TRIAL_CPUS, Layout
from pipelines.files.store import Store, masked
from pipelines.study.images import load_images
from pipelines.study.provenance import cpu_name, git_revision
from uvb.errors import UserError
from uvb.models import get_model
from uvb.models.io import save_model
from uvb.models.nets import count_parameters
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.loop import Progress, fit
from uvb.training.parallel import first_of_all, rank_and_world
from uvb.training.state import DamagedCheckpoint, TrainState

KEPT_STATES = 2
PROGRESS_SECONDS = 1.0  # progress and curves are written at most so often
RETRY_SECONDS = 5.0  # before a checkpoint that could not be written is tried again
STUCK_LIMIT = 8  # a model that crashes its workers so often at one place is given up; the others go on
DIVERGED = 1e30
WORKER_FAILURES = 40  # restarts of a group's workers
TRIAL_FAILURES = 10  # restarts of a trial
START_FAILURES = 10  # times a worker group may fail to start, e.g. while an autoscaler brings nodes


# ---------------------------------------------------------------------------------------------------- in a train worker


def train_group(config: dict[str, Any]) -> None:
    """What every worker of a group runs; `config` as `GroupRunner` makes it."""
    plan, store = Plan.from_json(config["plan"]), Store(config["store"])
    if plan.device == "cuda":
        torch.cuda.set_device(get_device())
    if rank_and_world()[1] != plan.workers:
        raise RuntimeError(f"{rank_and_world()[1]} workers were started where the plan says {plan.workers}")
    for blob in config["specs"]:
        spec = RunSpec.from_json(blob)
        outcome = Training(spec, plan, store, config["checkpoint_seconds"], config["report_epochs"]).run()
        train.report({"spec_id": spec.spec_id, **outcome})  # every rank, equally often


class Training:
    """One model on one worker. Rank 0 alone writes; the others follow what it found."""

    def __init__(self, spec: RunSpec, plan: Plan, store: Store, checkpoint_seconds: float, report_epochs: int) -> None:
        self.spec, self.plan, self.study = spec, plan, store
        self.store = Store(store.join("models", spec.spec_id))
        self.checkpoint_seconds, self.report_epochs = checkpoint_seconds, report_epochs
        self.rank = rank_and_world()[0]
        self.notes: list[str] = []
        self.written = self.saved = 0.0
        self.drawn = 0  # epochs in curves.json
        self.history: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Train to the end, from wherever it stands; returns plain metrics."""
        start = agreed(self._look() if self.rank == 0 else None)
        if start in ("done", "failed"):
            return {"outcome": start, "epoch": self.spec.recipe.epochs, "loss": self._last_loss()}
        refused = ""
        try:
            images = load_images(self.study.uri, self.spec.data.checksum)
            state = self._load(start)
        except UserError as error:
            refused = str(error)
        if refused := first_of_all(refused):  # all leave together: the others would wait for this one's gradients
            return self._failed(refused)
        self.saved = time.monotonic()
        warnings.showwarning = self._warned  # type: ignore[assignment]  # fewer names for the same arguments
        warnings.filterwarnings("always", category=UserWarning, module="uvb")  # a group's every model says what befell it
        fitting = fit(self.spec, self.plan, state, images)
        while True:
            try:
                progress = next(fitting, None)
            except UserError as error:  # every rank sees the same sums, so all leave here
                if error.__cause__ and not self.rank:
                    traceback.print_exception(error.__cause__)  # for Ray's logs: a model's author wants the line
                return self._failed(str(error))
            if progress is None:
                break
            self._pulse(progress, state)
        if self.rank == 0:
            try:
                self._finish(state)
            except UserError as error:  # a full disk, say: the last checkpoint stays, and the same command goes on from it
                return self._failed(str(error))
        last = state.curves[-1]
        return {"outcome": "done", "epoch": state.epoch, "loss": last.test_loss}

    def _look(self) -> str:
        """Where this model stands: "done", "failed", "fresh", or the name of the newest checkpoint that is whole."""
        if self.store.exists("done.json"):
            self._try(lambda: self.store.remove("state"))  # still there, if it was killed just after it was done
            return "done"
        if self.store.exists("failed.json"):  # in this session: a new one removes it first
            return "failed"
        before = read_json(self.store, "progress.json")
        try:
            start = self._newest_state() or "fresh"
        except UserError as error:
            self._failed(str(error))
            return "failed"
        except OSError as error:  # a disk or a store that fails, for a moment perhaps: the next worker asks again
            stuck = before.get("stuck", 0) + 1
            if stuck >= STUCK_LIMIT:
                where = masked(self.store.join("state"))
                self._failed(f"its checkpoints cannot be read ({error}); make them readable, or remove {where}")
                return "failed"
            self._try(lambda: self.store.write_json("progress.json", before | {"stuck": stuck}))
            raise
        stuck = before.get("stuck", 0) + 1 if before.get("start") == start else 0
        self.history = {
            "starts": before.get("starts", 0) + 1,
            "start": start,
            "stuck": stuck,
            "began": before.get("began", time.time()),
        }
        if self.history["starts"] > 1:
            where = "its beginning" if start == "fresh" else f"step {int(start)}"
            self.notes.append(f"{self.spec.label}: going on from {where} (start {self.history['starts']})")
        if stuck >= STUCK_LIMIT:
            self._failed(f"{self.spec.label}: its workers died {stuck} times at the same place ({start}); see Ray's logs")
            return "failed"
        before = {"epoch": before.get("epoch", 0), "loss": before.get("loss"), "images_per_s": None}
        self._try(lambda: self._write_progress(before))
        return start

    def _newest_state(self) -> str | None:
        for name in reversed(self.store.list("state")):
            try:
                with self.store.fetched(f"state/{name}") as folder:
                    TrainState.load(folder, self.spec, self.plan)
                return name
            except (DamagedCheckpoint, FileNotFoundError) as error:  # or of another format: the one before it may be whole
                self.notes.append(f"{self.spec.label}: checkpoint {name} is not used ({error}); taking the one before it")
        return None

    def _load(self, start: str) -> TrainState:
        if start == "fresh":
            return TrainState.fresh(self.spec, self.plan)
        with self.store.fetched(f"state/{start}") as folder:
            return TrainState.load(folder, self.spec, self.plan)

    def _pulse(self, progress: Progress, state: TrainState) -> None:
        """After an epoch, and now and then inside one."""
        if progress.metrics and not state.finished and self.report_epochs and state.epoch % self.report_epochs == 0:
            if not self.rank:  # before Tune hears of it, and perhaps stops this training
                self._try(lambda: self.store.write_json("curves.json", curves(state)))
            train.report({"spec_id": self.spec.spec_id, "epoch": state.epoch, "loss": progress.metrics.test_loss})
        if self.rank or state.finished:
            return
        now = time.monotonic()
        if now - self.written >= PROGRESS_SECONDS:
            self.written = now
            at = {"epoch": progress.epoch + progress.step / progress.steps, "loss": progress.loss}
            self._try(lambda: self._write_progress({**at, "images_per_s": progress.images_per_second}))
            if len(state.curves) > self.drawn and self._try(lambda: self.store.write_json("curves.json", curves(state))):
                self.drawn = len(state.curves)
        if now - self.saved >= self.checkpoint_seconds:
            saved = self._try(lambda: self._save(state))
            self.saved = time.monotonic() - (0.0 if saved else max(0.0, self.checkpoint_seconds - RETRY_SECONDS))

    def _try(self, write: Callable[[], None]) -> bool:
        """A full disk, or a store that is away, does not end a training: it goes on, says so, and tries again later."""
        try:
            write()
        except (UserError, OSError) as error:
            self.notes = [note for note in self.notes if note != str(error)] + [str(error)]
            return False
        return True

    def _save(self, state: TrainState) -> None:
        with self.store.folder(f"state/{state.global_step:09d}") as folder:
            state.save(folder, self.plan)
        upto = [name for name in self.store.list("state") if int(name) <= state.global_step]  # those after it were passed over
        for name in upto[:-KEPT_STATES]:
            self.store.remove(f"state/{name}")

    def _finish(self, state: TrainState) -> None:
        """The model, its curves, and then, last, the file that says so."""
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
            "versions": {name: version(name) for name in ("torch", "ray")},
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
        """For a scheduler: the last epoch's test loss; one that diverged has none and counts as very large."""
        rows = read_json(self.store, "curves.json").get("rows", [])
        return rows[-1]["test_loss"] if rows and self.store.exists("done.json") else DIVERGED

    def _failed(self, line: str) -> dict[str, Any]:
        if self.rank == 0:
            line = line if self.spec.label in line else f"{self.spec.label}: {line}"
            blob = {"error": line, "time": time.time(), "starts": self.history.get("starts", 1)}
            self._try(lambda: self.store.write_json("failed.json", blob))
        return {"outcome": "failed", "epoch": self.spec.recipe.epochs, "loss": DIVERGED}

    def _write_progress(self, now: dict[str, Any]) -> None:
        self.store.write_json("progress.json", {**self.history, **now, "time": time.time(), "notes": self.notes})

    def _warned(self, message: Any, category: Any, filename: str, *_: Any) -> None:
        """`uvb`'s own warnings (compiling failed, ...) reach the person at the driver's screen; libraries' do not."""
        if category is UserWarning and Path(uvb.__file__).parent in Path(filename).parents:
            self.notes.append(f"{self.spec.label}: {message}")


def curves(state: TrainState) -> dict[str, Any]:
    """curves.json: a row an epoch, counted from 1."""
    rows = [dataclasses.asdict(row) for row in state.curves]
    rates = [row.pop("images_per_second") for row in rows]
    return {"rows": [{**row, "epoch": row["epoch"] + 1, "images_per_s": rate} for row, rate in zip(rows, rates, strict=True)]}


def agreed(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    if rank_and_world()[1] > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def device_name(plan: Plan) -> str:
    return torch.cuda.get_device_name() if plan.device == "cuda" else "cpu"


def outcome(store: Store, spec_id: str) -> str | None:
    """How a training ended, which a file says by its name: "done", "failed", or "stopped" by a search; None: it has not."""
    return next((end for end in ("done", "failed", "stopped") if store.exists(f"models/{spec_id}/{end}.json")), None)


def read_json(store: Store, path: str) -> dict[str, Any]:
    """A JSON object, or {} where it is absent or damaged: what is read so can be done without."""
    try:
        blob = store.read_json(path)
    except (OSError, ValueError):
        return {}
    return blob if isinstance(blob, dict) else {}


# -------------------------------------------------------------------------------------------------------- in the driver


def train_trial(config: dict[str, Any]) -> None:
    """What a Tune trial runs: one TorchTrainer. Its name is new each time, since our files alone say where to go on."""
    group = config["group"]
    # What frees the CPUs of a killed trial asks the state API, which gives up where a machine runs several Rays unless told
    # which; Train hands on these variables to its controller.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    TorchTrainer(
        train_group,
        train_loop_config=group,
        scaling_config=train.ScalingConfig(
            num_workers=group["plan"]["workers"],
            use_gpu="GPU" in group["resources"],
            resources_per_worker=group["resources"],
        ),
        run_config=train.RunConfig(
            name=f"train-{uuid4().hex[:12]}",
            storage_path=group["scratch"],
            failure_config=train.FailureConfig(max_failures=WORKER_FAILURES, controller_failure_limit=START_FAILURES),  # type: ignore[call-arg]  # Ray's stubs are of V1
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]  # Ray's stubs want V1's callbacks
        ),
    ).fit()


class StoppedEarly(tune.Callback):
    """A search's trial that ends before its models do was stopped by the scheduler: their files say so at once."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if "outcome" in (trial.last_result or {}):  # what a training says when it ends by itself
            return
        with suppress(UserError, OSError):  # then the model counts as not trained to its end
            for spec_id in spec_ids([trial.config["group"]]):
                if outcome(self.store, spec_id) is None:
                    self.store.write_json(f"models/{spec_id}/stopped.json", {"time": time.time()})


class GroupRunner:
    """Trains groups through Ray Tune in a thread of its own, so that Ctrl-C is the driver's and not Tune's.

    Args:
        scheduler: a Tune scheduler over the metric ``loss`` by ``epoch`` for searches; None trains everything to its end.
        report_epochs: how often a model reports to it; 0: only at its end.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        layout: Layout,
        store: Store,
        checkpoint_seconds: float,
        scheduler: Any = None,
        report_epochs: int = 0,
    ) -> None:
        scratch = store.join("ray")
        self.groups = [
            {
                "store": store.uri,
                "scratch": scratch,
                "specs": [spec.to_json() for spec in group.specs],
                "plan": group.plan.to_json(),
                "resources": layout.resources,
                "checkpoint_seconds": checkpoint_seconds,
                "report_epochs": report_epochs,
            }
            for group in groups
        ]
        self.tuner = tune.Tuner(
            tune.with_resources(train_trial, {"CPU": TRIAL_CPUS}),
            param_space={"group": tune.grid_search(self.groups)},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=layout.concurrency,
                scheduler=scheduler,
                metric="loss" if scheduler else None,
                mode="min" if scheduler else None,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{uuid4().hex[:12]}",
                storage_path=scratch,
                verbose=0,
                callbacks=[StoppedEarly(store)] if scheduler else [],
                failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            ),
        )
        self.errors: list[str] = []
        self.thread = threading.Thread(target=self._run, name=TUNE_THREAD, daemon=True)

    def start(self) -> "GroupRunner":
        self.thread.start()
        return self

    @property
    def running(self) -> bool:
        return self.thread.is_alive()

    def _run(self) -> None:
        try:
            results = self.tuner.fit()
            for result in (results[index] for index in range(len(results))):
                if result.error:
                    self.errors.append(last_line(result.error))
        except Exception as error:  # told by the driver, with what was not finished
            self.errors.append(last_line(error))


def spec_ids(groups: Sequence[dict[str, Any]]) -> set[str]:
    """Of the models in groups as `GroupRunner` makes them."""
    return {RunSpec.from_json(blob).spec_id for group in groups for blob in group["specs"]}


def last_line(error: BaseException) -> str:
    """The line of a (remote) traceback that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
