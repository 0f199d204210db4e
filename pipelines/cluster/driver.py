"""Train from the driver: Tune runs one trial for each group of models, and each trial runs one TorchTrainer."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import ray
from ray import train, tune
from ray.train import UserCallback
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from pipelines.cluster import compat
from pipelines.cluster.groups import Group
from pipelines.cluster.layout import TRIAL_CPUS, Layout
from pipelines.cluster.worker import train_group
from pipelines.errors import last_line
from pipelines.executor.outcomes import outcome
from pipelines.executor.training import STUCK_LIMIT
from pipelines.files.formats import ProgressJson
from pipelines.files.store import Store
from pipelines.leaving import stubborn
from uvb.errors import UserError
from uvb.spec import RunSpec

WORKER_FAILURES = 40  # restarts of a group's workers
TRIAL_FAILURES = 10  # restarts of a trial
START_FAILURES = 10  # how often a worker group may fail to start, e.g. while an autoscaler adds nodes


def train_trial(config: dict[str, Any]) -> None:
    """Run one TorchTrainer, for the group whose number is in `config`. Tune calls this for each trial.

    The trainer gets a new name each time, so that Ray restores nothing. Our own files say where training continues.
    """
    group = compat.shared(config["shared"])[config["group"]]
    deaths = EarlyDeaths(group["store"], group["specs"])
    if not deaths.unfinished:  # an earlier attempt of this trial gave up
        return
    # Ray Train frees a killed trial's CPUs through Ray's state API. Tell it which cluster, since a machine may run several.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    compat.hand_to_controller("RAY_ADDRESS")
    # Ray's type annotations are still those of Train V1, so both variables are Any.
    limits: dict[str, Any] = {"max_failures": WORKER_FAILURES, "controller_failure_limit": START_FAILURES}
    callbacks: list[Any] = [TuneReportCallback(), deaths]
    trainer = TorchTrainer(
        train_group,
        train_loop_config=group,
        scaling_config=train.ScalingConfig(
            num_workers=group["plan"]["workers"], use_gpu="GPU" in group["resources"], resources_per_worker=group["resources"]
        ),
        run_config=train.RunConfig(
            name=f"train-{uuid4().hex[:12]}",
            storage_path=group["scratch"],
            failure_config=train.FailureConfig(**limits),
            callbacks=callbacks,
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # a worker may have died so early that Ray called no callback
        deaths.count(error)
        raise


class EarlyDeaths(UserCallback):
    """A counter of workers that die before `Training` can count them. After `STUCK_LIMIT` deaths it gives up their group.

    Without this limit Ray would start such workers hundreds of times. `Training` changes progress.json as soon as it begins.
    So if that file has not changed, the worker died early.
    """

    def __init__(self, store: str, specs: Sequence[dict[str, Any]]) -> None:
        self.uri = store
        self.labels = {spec.spec_id: spec.label for spec in map(RunSpec.from_json, specs)}
        self.seen = self._progress()

    @property
    def unfinished(self) -> list[str]:
        """The spec_ids of the models that have no outcome, in the order of training."""
        return [spec_id for spec_id in self.labels if outcome(Store(self.uri), spec_id) is None]

    def _progress(self) -> dict[str, Any]:
        """The content of progress.json of the model that trains now; {} if there is none."""
        left = self.unfinished
        return Store(self.uri).find_json(f"models/{left[0]}/progress.json", ProgressJson) if left else {}

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Count a death. Ray calls this when a worker dies or raises."""
        self.count(worker_exceptions.popitem()[1])

    def count(self, error: Exception) -> None:
        """Count a worker that died with `error`.

        Raises:
            RuntimeError: `STUCK_LIMIT` workers have died. This ends the trainer.
        """
        store, before = Store(self.uri), self.seen
        self.seen = self._progress()
        if not self.unfinished or self.seen != before:
            return
        self.seen = before | {"stuck": before.get("stuck", 0) + 1}
        with suppress(UserError):  # e.g. on a full disk; this death is then not counted, but a later one is
            store.write_json(f"models/{self.unfinished[0]}/progress.json", self.seen)
        if self.seen["stuck"] >= STUCK_LIMIT:
            reason = f"its workers died {STUCK_LIMIT} times before training began ({last_line(error)})"
            for spec_id in self.unfinished:
                blob = {"error": f"{self.labels[spec_id]}: {reason}; see Ray's logs", "time": time.time()}
                store.write_json(f"models/{spec_id}/failed.json", blob)
            raise RuntimeError(reason)


class StoppedEarly(tune.Callback):
    """A callback that writes stopped.json for the models of a trial that a search's scheduler stopped.

    Args:
        groups: the spec_ids of each group of models. A trial's config has the number of its group.
    """

    def __init__(self, store: Store, groups: Sequence[Sequence[str]]) -> None:
        self.store, self.groups = store, groups

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if "outcome" in (trial.last_result or {}):  # the training ended by itself
            return
        with suppress(UserError, OSError):  # without the file, the model counts as not trained to its end
            for spec_id in self.groups[trial.config["group"]]:
                if outcome(self.store, spec_id) is None:
                    self.store.write_json(f"models/{spec_id}/stopped.json", {"time": time.time()})


class GroupRunner:
    """A run of Ray Tune that trains groups. It has its own thread, so that Ctrl-C reaches the driver and not Tune.

    Args:
        scheduler: a search's Tune scheduler, which reads the metrics ``loss`` and ``epoch``. None: stop no training early.
        report_epochs: each model reports to the scheduler every so many epochs. 0: only at its end.
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
        configs = [
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
        stopping = StoppedEarly(store, [[spec.spec_id for spec in group.specs] for group in groups])
        key = f"uvb-groups-{uuid4().hex}"
        compat.share(key, configs)
        self.tuner = tune.Tuner(
            tune.with_resources(train_trial, {"CPU": TRIAL_CPUS}),
            param_space={"shared": key, "group": tune.grid_search(list(range(len(groups))))},
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
                callbacks=[stopping] if scheduler else [],
                failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            ),
        )
        self.errors: list[str] = []
        self.thread = stubborn(threading.Thread(target=self._run, name="tune", daemon=True))

    def start(self) -> "GroupRunner":
        """Start the thread and return at once."""
        self.thread.start()
        return self

    def join(self, timeout: float | None = None) -> None:
        """Wait until Tune has ended, at most `timeout` seconds."""
        self.thread.join(timeout)

    @property
    def running(self) -> bool:
        """Whether Tune still runs."""
        return self.thread.is_alive()

    def _run(self) -> None:
        # Tune prints a traceback for each failed trial, even if it retries the trial. `errors` keeps one line instead.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        try:
            results = self.tuner.fit()
            for index in range(len(results)):
                if error := results[index].error:
                    self.errors.append(last_line(error))
        except Exception as error:  # the driver prints this line, and names the models that did not finish
            self.errors.append(last_line(error))
