"""Train one model on a CPU without Ray, resume where it stopped, measure it, and say when it reached which loss.

python -m benchmarks.cpu.speedrun --data-dir DATA --folder OUT [--model uvb] [--epochs 10] [--learning-rate 0.004] ...

The same command continues an interrupted training. `--held-out` trains on four fifths of the training images and measures on
the rest, so that a choice of recipe never sees the test set. OUT receives result.json (recipe, curve, losses, machine) and
the model as `uvb.load` reads it.
"""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from uvb.data import ImageSet, load_dataset
from uvb.measure.losses import EvalConfig, clustered_mean, denoisers, evaluation_images, image_losses
from uvb.models import get_model
from uvb.models.capacity import parameters, widths_at
from uvb.models.io import save_model
from uvb.plan import Plan, Precision, has_fast_bf16, usable_cpus
from uvb.spec import OPTIMIZERS, DataRef, Recipe, RunSpec
from uvb.training.loop import fit
from uvb.training.state import EpochMetrics, TrainState

THRESHOLDS = (17.0, 16.5, 16.0, 15.5, 15.0)  # test losses of UVB on MNIST at sigma = 1 whose times are kept


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
    add("--held-out", action="store_true", help="choose by a fifth of the training images; the test set stays unseen")
    add("--train-images", type=int, default=0, help="train on the first so many images (0: all)")
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
    add("--eval-images", type=int, default=0, help="of the test (or held-out) images (0: all)")
    add("--eval-train-images", type=int, default=2000)
    return parser.parse_args()


def spec_of(asked: argparse.Namespace, images: ImageSet) -> RunSpec:
    recipe = Recipe(
        "speedrun", asked.epochs, asked.batch_size, asked.learning_rate, asked.schedule, asked.warmup, asked.clip, asked.ema,
        asked.optimizer, asked.beta2, asked.weight_decay,
    )  # fmt: skip
    data = DataRef(images.name, images.checksum, images.shape, asked.train_images or len(images.train))
    widths, objective = widths_at(asked.model, images.shape, asked.width), get_model(asked.model).objective
    return RunSpec(data, asked.model, widths, asked.sigma, objective, recipe, seed=asked.seed)


def newest(folder: Path) -> Path | None:
    found = sorted(folder.glob("state-*"))
    return found[-1] if found else None


def keep(state: TrainState, plan: Plan, folder: Path) -> None:
    """Write a checkpoint under a name that sorts by step, and remove older ones."""
    part = folder / "part"
    shutil.rmtree(part, ignore_errors=True)
    state.save(part, plan)
    old = newest(folder)
    part.rename(folder / f"state-{state.global_step:09d}")
    if old is not None and old.name != f"state-{state.global_step:09d}":
        shutil.rmtree(old)


def train(spec: RunSpec, plan: Plan, images: ImageSet, folder: Path, checkpoint_seconds: float) -> TrainState:
    last = newest(folder)
    state = TrainState.load(last, spec, plan) if last is not None else TrainState.fresh(spec, plan)
    print(f"{spec.label} {spec.spec_id}: {plan}; from step {state.global_step}", flush=True)
    saved = time.monotonic()
    for progress in fit(spec, plan, state, images, pulse_seconds=min(30.0, checkpoint_seconds)):
        row = progress.metrics
        said = f"epoch {progress.epoch} step {progress.step}/{progress.steps} loss {progress.loss:.3f}"
        print(said, f"{state.seconds:.0f} s", f"probe {row.test_loss:.3f} KL {row.kl or 0:.0f}" if row else "", flush=True)
        if time.monotonic() - saved > checkpoint_seconds or state.finished:
            keep(state, plan, folder)
            saved = time.monotonic()
    return state


def reached(curves: list[EpochMetrics]) -> dict[str, float]:
    """Seconds of training until the probe's test loss was first at most each threshold."""
    times = {t: [row.seconds for row in curves if row.test_loss <= t] for t in THRESHOLDS}
    return {f"{t:g}": seconds[0] for t, seconds in times.items() if seconds}


def measured(spec: RunSpec, plan: Plan, state: TrainState, images: ImageSet, config: EvalConfig) -> dict[str, Any]:
    """The model's own loss on both splits, as `uvb.experiments.losses` measures it."""
    found: dict[str, Any] = {}
    model = state.averaged.eval()
    _, denoise = next(iter(denoisers(model).items()))
    for split in ("train", "test"):
        x = evaluation_images(images, split, config, spec.data.train_images)
        mean = clustered_mean(image_losses(denoise, model.noise_dim, x, images.levels, spec.sigma, split, config, plan))
        found[split] = {"loss": mean.value, "stderr": mean.stderr, "images": len(x), "draws": config.draws}
    return found


def machine() -> str:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    amx = " with AMX" if torch.cpu._is_amx_tile_supported() else ""
    return f"{usable_cpus()} cores, {names[0] if names else platform.machine()}{amx}, torch {torch.__version__}"


def main() -> None:
    asked = arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    images = load_dataset(asked.dataset, data_dir=asked.data_dir)
    if asked.held_out:
        images = images.validation()
    spec = spec_of(asked, images)
    precision: Precision = asked.precision if asked.precision != "auto" else "bf16" if has_fast_bf16("cpu") else "fp32"
    plan = Plan(precision=precision, compile=asked.compile, threads=asked.threads or usable_cpus())
    state = train(spec, plan, images, asked.folder, asked.checkpoint_seconds)
    config = EvalConfig(asked.eval_train_images, asked.eval_images, asked.eval_draws)
    started = time.monotonic()
    result = {
        "spec_id": spec.spec_id,
        "spec": spec.to_json(),
        "parameters": parameters(spec.model, spec.data.shape, spec.widths),
        "plan": plan.to_json(),
        "machine": machine(),
        "beside_other_work": bool(os.environ.get("UVB_BACKGROUND")),
        "seconds": state.seconds,
        "held_out": asked.held_out,
        "losses": measured(spec, plan, state, images, config),
        "reached": reached(state.curves),
        "curves": [dataclasses.asdict(row) for row in state.curves],
    }
    result["seconds_measuring"] = time.monotonic() - started
    (asked.folder / "result.json").write_text(json.dumps(result, indent=1))
    card = {"losses": result["losses"], "seconds": state.seconds, "machine": result["machine"]}
    save_model(state.averaged, spec, asked.folder / "model", card)
    print(json.dumps({k: result[k] for k in ("losses", "reached", "seconds")}), flush=True)


if __name__ == "__main__":
    main()
