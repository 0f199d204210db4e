"""Train one model on a CPU without Ray, and measure it. Record how soon the test loss reaches each of several thresholds.

python -m benchmarks.cpu.speedrun --data-dir DATA --folder OUT [--model uvb] [--epochs 10] [--learning-rate 0.004] ...

The same command continues an interrupted training. `--held-out` trains on four fifths of the training images and measures on
the rest, so that you can choose a recipe without the test set. OUT becomes a study's folder. It also gets result.json (recipe,
curve, losses, machine) and model/, which `uvb.load` reads.
Set UVB_BACKGROUND=1 if the machine also does other work; result.json and the card of a shipped model then say so.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.training import cpu_plan, own_loss, spec_on
from pipelines.executor.training import Training, lay_out
from pipelines.files.store import Store
from uvb.accelerate.cpu import flush_subnormals
from uvb.data import ImageSet, load_dataset
from uvb.measure.losses import EvalConfig
from uvb.models.capacity import parameters, widths_at
from uvb.models.io import load
from uvb.plan import Plan
from uvb.spec import OPTIMIZERS, Recipe, RunSpec
from uvb.training.loop import Progress

# The thresholds of the test loss. They suit UVB on MNIST at σ = 1.
THRESHOLDS = (17.0, 16.5, 16.0, 15.5, 15.0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where checkpoints, model and result.json go")
    add("--dataset", default="mnist")
    add("--data-dir", type=Path, default=Path("data"))
    add("--model", default="uvb")
    add("--width", type=float, default=1.0, help="1: the paper's widths")
    add("--sigma", type=float, default=1.0)
    add("--seed", type=int, default=0)
    add("--held-out", action="store_true", help="measure on a fifth of the training images, not on the test set")
    add("--train-images", type=int, default=0, help="number of images to train on, the first of the set (0: all)")
    add("--epochs", type=int, default=10)
    add("--optimizer", choices=OPTIMIZERS, default="muon_conv")
    add("--learning-rate", type=float, default=4e-3)
    add("--batch-size", type=int, default=64)
    add("--schedule", choices=("constant", "cosine"), default="cosine")
    add("--warmup", type=float, default=0.05)
    add("--clip", type=float, default=100.0)
    add("--ema", type=float, default=0.999)
    add("--beta2", type=float, default=0.999)
    add("--weight-decay", type=float, default=0.0)
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    add("--compile", action="store_true")
    add("--threads", type=int, default=0)
    add("--checkpoint-seconds", type=float, default=120.0)
    add("--eval-draws", type=int, default=4)
    add("--eval-images", type=int, default=0, help="how many test (or held-out) images to measure on (0: all)")
    add("--eval-train-images", type=int, default=2000)
    return parser.parse_args()


def spec_of(asked: argparse.Namespace, images: ImageSet) -> RunSpec:
    recipe = Recipe(
        "speedrun", asked.epochs, asked.batch_size, asked.learning_rate, asked.schedule, asked.warmup, asked.clip, asked.ema,
        asked.optimizer, asked.beta2, asked.weight_decay,
    )  # fmt: skip
    widths = widths_at(asked.model, images.shape, asked.width)
    return spec_on(
        images, asked.model, recipe, widths=widths, sigma=asked.sigma, train_images=asked.train_images, seed=asked.seed
    )


def show(progress: Progress) -> bool:
    """Print the progress of the training. Return False: never ask for a pause."""
    row = progress.metrics
    said = f"epoch {progress.epoch} step {progress.step}/{progress.steps} loss {progress.loss:.3f}"
    print(said, f"test {row.test_loss:.3f} KL {row.kl or 0:.0f}" if row else "", flush=True)
    return False


def reached(curves: list[Mapping[str, Any]]) -> dict[str, float]:
    """Threshold of the test loss -> seconds of training until the end of the first epoch with at most this loss.

    A threshold that was never reached has no entry.
    """
    times = {t: [row["seconds"] for row in curves if row["test_loss"] <= t] for t in THRESHOLDS}
    return {f"{t:g}": seconds[0] for t, seconds in times.items() if seconds}


def main() -> None:
    asked = arguments()
    flush_subnormals()
    images = load_dataset(asked.dataset, data_dir=asked.data_dir)
    if asked.held_out:
        images = images.validation()
    spec, best = spec_of(asked, images), cpu_plan(asked.threads)
    precision = best.precision if asked.precision == "auto" else asked.precision
    plan = Plan(precision=precision, compile=asked.compile, threads=best.threads)
    store, folder = Store(asked.folder), f"models/{spec.spec_id}"
    lay_out(store, images, {spec: plan})
    store.remove(f"{folder}/failed.json")  # of an earlier call
    print(f"{spec.label} {spec.spec_id}: {plan}", flush=True)
    if Training(spec, plan, store, asked.checkpoint_seconds, watch=show).run()["outcome"] != "done":
        sys.exit(store.read_json(f"{folder}/failed.json")["error"])
    shutil.copytree(asked.folder / folder / "model", asked.folder / "model", dirs_exist_ok=True)
    done, curves = (store.read_json(f"{folder}/{name}.json") for name in ("done", "curves"))
    config = EvalConfig(asked.eval_train_images, asked.eval_images, asked.eval_draws)
    started, model = time.monotonic(), load(asked.folder / "model")
    result = {
        "spec_id": spec.spec_id,
        "spec": spec.to_json(),
        "parameters": parameters(spec.model, spec.data.shape, spec.widths),
        "plan": plan.to_json(),
        "machine": machine(),
        "beside_other_work": bool(os.environ.get("UVB_BACKGROUND")),
        "seconds": done["seconds"],
        "held_out": asked.held_out,
        "losses": {split: own_loss(model, spec, images, split, config, plan) for split in ("train", "test")},
        "reached": reached(curves["rows"]),
        "curves": curves["rows"],
        "seconds_measuring": time.monotonic() - started,
    }
    (asked.folder / "result.json").write_text(json.dumps(result, indent=1))
    print(json.dumps({k: result[k] for k in ("losses", "reached", "seconds")}), flush=True)


if __name__ == "__main__":
    main()
