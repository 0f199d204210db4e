"""Helpers of several benchmarks: options, images, specs, plans, trainings and a model's losses."""

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uvb.data import ImageSet, load_dataset
from uvb.data.readers.decode import Decoding
from uvb.data.readers.own import ReadOptions
from uvb.machine import usable_cpus
from uvb.measure.losses import EvalConfig, NoisyImages, clustered_mean, denoisers, image_losses
from uvb.models import get_model
from uvb.models.base import Estimator
from uvb.models.capacity import default_widths
from uvb.plan import Plan, Precision, has_fast_bf16
from uvb.spec import DataRef, Recipe, RunSpec, Shape, Widths
from uvb.training.loop import fit
from uvb.training.state import TrainState

SHAPES: dict[str, Shape] = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def add_comparison(parser: argparse.ArgumentParser, dataset: str) -> None:
    """Add the options that every comparison of models takes: folder, images, models and noise levels."""
    add = parser.add_argument
    add("--folder", type=Path, required=True)
    add("--dataset", default=dataset)
    add("--data-dir", type=Path, default=Path("data"))
    add("--resize", type=int, default=0, help="pixels of the shorter side (0: as it is)")
    add("--width", type=float, default=1.0)
    add("--models", nargs="+", default=["uvb", "deen"])
    add("--sigmas", type=float, nargs="+", default=[0.3, 0.6, 1.0])


def compared_images(asked: argparse.Namespace) -> ImageSet:
    """The images that the options of `add_comparison` name."""
    options = ReadOptions(decoding=Decoding(resize=asked.resize))
    return load_dataset(asked.dataset, data_dir=asked.data_dir, options=options)


def cpu_precision() -> Precision:
    """The precision in which this machine's CPU trains fastest."""
    return "bf16" if has_fast_bf16("cpu") else "fp32"


def cpu_plan(threads: int = 0) -> Plan:
    """The plan of an uncompiled training on this machine's CPU. `threads` = 0 means one for each CPU."""
    return Plan(precision=cpu_precision(), threads=threads or usable_cpus())


def random_images(shape: Shape, count: int, test: int = 8) -> ImageSet:
    """A set of `count` random training images. The first `test` of them are also its test images."""
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet("random", pixels, pixels[:test])


def spec_on(
    images: ImageSet, model: str, recipe: Recipe, *, widths: Widths | None = None, sigma: float = 1.0, train_images: int = 0,
    seed: int = 0,
) -> RunSpec:  # fmt: skip
    """The spec of a training on `images`, by default with the model's default widths and all training images."""
    data = DataRef(images.name, images.checksum, images.shape, train_images or len(images.train))
    widths = widths or default_widths(model, images.shape)
    return RunSpec(data, model, widths, sigma, get_model(model).objective, recipe, seed=seed)


def trained(spec: RunSpec, plan: Plan, images: ImageSet, state: TrainState | None = None) -> TrainState:
    """Train a model to the end in this process, by default from the start, without writing files. Return the last state."""
    state = state or TrainState.fresh(spec, plan)
    for _ in fit(spec, plan, state, images, pulse_seconds=1e9):
        pass
    return state


def own_losses(
    model: Estimator, spec: RunSpec, images: ImageSet, split: str, config: EvalConfig, plan: Plan
) -> tuple[str, Tensor]:
    """The first estimator that `denoisers` lists, and its loss on each image of a split, averaged over draws, (N,) float64.

    The estimator is given by its name: "energy" or "direct".
    """
    name, denoise = next(iter(denoisers(model).items()))
    noisy = NoisyImages.of(images, split, spec.sigma, config, plan, spec.data.train_images)
    return name, image_losses(denoise, model.noise_dim, noisy).mean(1)


def own_loss(model: Estimator, spec: RunSpec, images: ImageSet, split: str, config: EvalConfig, plan: Plan) -> dict[str, Any]:
    """The mean of `own_losses` with its standard error, and the numbers of images and draws."""
    name, losses = own_losses(model, spec, images, split, config, plan)
    mean = clustered_mean(losses)
    return {"estimator": name, "loss": mean.value, "stderr": mean.stderr, "images": len(losses), "draws": config.draws}


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file, or [] if the file does not exist yet. A line that a kill has cut short is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def append_json_line(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a .jsonl file. If a kill has cut the last line short, begin a new one."""
    before = path.read_text() if path.exists() else ""
    with path.open("a") as file:
        file.write(("\n" if before and not before.endswith("\n") else "") + json.dumps(row) + "\n")
