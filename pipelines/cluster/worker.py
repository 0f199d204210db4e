"""Train the models of a group in turn. This is the function that each Ray Train worker runs."""

from typing import Any

import torch
from ray import train
from ray.train.torch import get_device

from pipelines.executor.training import Training
from pipelines.files.store import Store
from uvb.plan import Plan
from uvb.spec import RunSpec
from uvb.training.parallel import rank_and_world


def train_group(config: dict[str, Any]) -> None:
    """Train the models of a group by `pipelines.executor`. `pipelines.cluster.driver.GroupRunner` makes `config`."""
    plan, store = Plan.from_json(config["plan"]), Store(config["store"])
    if plan.device == "cuda":
        torch.cuda.set_device(get_device())
    if rank_and_world()[1] != plan.workers:
        raise RuntimeError(f"Ray started {rank_and_world()[1]} workers, but the plan has {plan.workers}")
    for blob in config["specs"]:
        spec = RunSpec.from_json(blob)
        ended = Training(spec, plan, store, config["checkpoint_seconds"], config["report_epochs"], train.report).run()
        train.report({"spec_id": spec.spec_id, **ended})  # every rank must report equally often
