"""Measure the generalization gap on the same images: compare a model trained on them with one that was not.

This is for the paper's open question 2.

python -m benchmarks.cpu.gap --folder OUT --dataset mnist --data-dir DATA --resize 14 --width 0.125
    [--sizes 500 2000 8000 30000] [--steps 2000 8000] [--sigmas 0.3 0.6 1.0] [--best '{"uvb": {...}, "deen": {...}}']

Two models train on disjoint halves of n images each, by the same recipe and seed. Both then denoise each half, with the same
noise. An image's gap is the loss of the model that did not train on it, minus the loss of the model that did. If one of the
two models is better everywhere, its lead cancels in the mean over both halves. For each model, n, number of steps and noise
level the script writes one row to OUT/gaps.jsonl. Each row has the standard error over images, the error from the noise draws,
and the gap of each half. The same command continues an interrupted run.
"""

import argparse
import itertools
import json
import math
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.training import add_comparison, append_json_line, compared_images, cpu_plan, json_lines, spec_on, trained
from uvb.data import ImageSet
from uvb.measure.losses import EvalConfig, NoisyImages, clustered_mean, denoisers, image_losses
from uvb.models.base import Estimator
from uvb.models.capacity import widths_at
from uvb.noise import generator
from uvb.spec import RECIPES


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_comparison(parser, "mnist")
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[500, 2000, 8000, 30_000], help="training images of each half")
    add("--steps", type=int, nargs="+", default=[2000, 8000], help="lengths of training")
    add("--best", type=json.loads, default={}, help="JSON: for each model, its changes to the recipe `fast`")
    add("--eval-images", type=int, default=2000, help="images of each half to measure on")
    add("--eval-draws", type=int, default=16)
    add("--threads", type=int, default=1)
    return parser.parse_args()


def halves(images: ImageSet, n: int) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of `n` training images, (n, C, H, W) each. The sets of a smaller `n` are subsets of these."""
    order = torch.randperm(len(images.train), generator=generator(0, "halves"))
    return images.train[order[0::2][:n]], images.train[order[1::2][:n]]


def model_of(asked: argparse.Namespace, model: str, sigma: float, steps: int, seen: Tensor, images: ImageSet) -> Estimator:
    """The averaged model after `steps` steps on the images `seen`."""
    data = ImageSet(f"{images.name}-half", seen, images.test, levels=images.levels)
    recipe = RECIPES["fast"].changed(**asked.best.get(model, {}))
    recipe = recipe.changed(epochs=max(1, round(steps / math.ceil(len(seen) / recipe.batch_size))))
    widths = widths_at(model, data.shape, asked.width)
    spec = spec_on(data, model, recipe, widths=widths, sigma=sigma)
    return trained(spec, cpu_plan(asked.threads), data).averaged.eval()


def gap(asked: argparse.Namespace, model: str, sigma: float, steps: int, n: int, images: ImageSet) -> dict[str, Any]:
    """The gap of one model, number of images, number of steps and noise level."""
    started = time.monotonic()
    parts = halves(images, n)
    models = [model_of(asked, model, sigma, steps, part, images) for part in parts]
    config, plan = EvalConfig(draws=asked.eval_draws), cpu_plan(asked.threads)
    apart, outside = [], []
    for half, part in enumerate(parts):
        noisy = NoisyImages(part[: asked.eval_images], images.levels, sigma, f"half {half}", config, plan)
        losses = []
        for one in models:
            _, denoise = next(iter(denoisers(one).items()))
            losses.append(image_losses(denoise, one.noise_dim, noisy))
        apart.append(losses[1 - half] - losses[half])  # (images, draws): outside minus inside
        outside.append(losses[1 - half])
    mean = clustered_mean(torch.cat(apart))
    draws = torch.cat(apart).mean(0)  # (draws,): the mean over images
    return {
        "model": model, "sigma": sigma, "n": n, "steps": steps, "gap": mean.value, "stderr_over_images": mean.stderr,
        "stderr_of_draws": float(draws.std() / math.sqrt(len(draws))),
        "of_each_swap": [float(part.mean()) for part in apart],
        "loss_outside": float(torch.cat(outside).mean()), "seconds": time.monotonic() - started,
    }  # fmt: skip


def main() -> None:
    asked = arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    images = compared_images(asked)
    file = asked.folder / "gaps.jsonl"
    done = json_lines(file)
    for n, steps, sigma, model in itertools.product(asked.sizes, asked.steps, asked.sigmas, asked.models):
        key = {"model": model, "sigma": sigma, "n": n, "steps": steps}
        if any(key.items() <= row.items() for row in done):
            continue
        row = gap(asked, model, sigma, steps, n, images)
        append_json_line(file, row)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
