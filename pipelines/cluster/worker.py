"""Training under Ray: Tune runs groups of models, a group is one TorchTrainer, which trains its models in turn.

What a worker leaves in ``models/<spec_id>/`` is the truth: checkpoints, progress, curves, the model, and ``done.json``
last. So a worker, a trial, a node or the driver may die at any moment; whoever comes next goes on from there.
"""

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import ray
import torch
from ray import train, tune
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.tune.integration.ray_train import TuneReportCallback

from pipelines.cli import TUNE_THREAD
from pipelines.cluster.groups import Group
from pipelines.cluster.layout import TRIAL_CPUS, Layout
from pipelines.executor.outcomes import outcome
from pipelines.executor.training import Training
from pipelines.files.store import Store
from uvb.errors import UserError
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.parallel import rank_and_world

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
        ended = Training(spec, plan, store, config["checkpoint_seconds"], config["report_epochs"], train.report).run()
        train.report({"spec_id": spec.spec_id, **ended})  # every rank, equally often


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
