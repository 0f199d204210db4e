"""Does the fast step train as well? Digits, trained in eager fp32 and the fast way, from the same weights on the same noise.

    python -m benchmarks.cpu.equal_losses [--quick]

Each seed gives one pair of test losses. `value` is the mean difference, fast less fp32, `spread` its standard error over
seeds, `ratio` the quotient of the mean losses. Below it, for scale, the standard error of one loss over test images.
"""

import argparse
import dataclasses
import json

import torch

from benchmarks.measure import Row, figure
from benchmarks.stacked import SMALL
from uvb.data import ImageSet, load_dataset
from uvb.measure.losses import EvalConfig, clustered_mean, evaluation_images, image_losses
from uvb.models import get_model
from uvb.plan import Plan, resolve_plan, usable_cpus
from uvb.spec import RECIPES, DataRef, RunSpec, Widths
from uvb.training.loop import fit
from uvb.training.state import TrainState

EPOCHS, SEEDS = 40, 4
EXACT = Plan(precision="fp32", threads=usable_cpus())  # losses are measured alike, whatever the training was


def test_losses(model: str, images: ImageSet, plan: Plan, seed: int, epochs: int, widths: Widths) -> torch.Tensor:
    """Train, and return each test image's loss of Eq. 18, averaged over four draws: (N,) float64."""
    data = DataRef(images.name, images.checksum, images.shape, len(images.train))
    recipe = dataclasses.replace(RECIPES["fast"], epochs=epochs)
    spec = RunSpec(data, model, widths, 1.0, get_model(model).objective, recipe, seed=seed)
    torch._dynamo.reset()
    state = TrainState.fresh(spec, plan)
    for _ in fit(spec, plan, state, images):
        pass
    config = EvalConfig()
    trained = state.averaged.to("cpu")
    x = evaluation_images(images, "test", config)
    return image_losses(trained, trained.noise_dim, x, images.levels, 1.0, "test", config, EXACT).mean(1)


def rows(device: str, quick: bool = False) -> list[Row]:
    """Two rows a model: the difference over seeds, and what one loss is uncertain by."""
    images = load_dataset("digits")
    fast = resolve_plan(device=device)
    first = Plan(device=device, precision="fp32", threads=usable_cpus())
    epochs, seeds = (1, 2) if quick else (EPOCHS, SEEDS)
    found: list[Row] = []
    for model in ("uvb", "deen"):
        pairs = [
            [test_losses(model, images, plan, seed, epochs, SMALL[model]) for plan in (first, fast)] for seed in range(seeds)
        ]
        differences = clustered_mean(torch.stack([b.mean() - a.mean() for a, b in pairs]))
        reference, ours = (torch.stack([pair[side].mean() for pair in pairs]).mean().item() for side in (0, 1))
        how = f"{fast.precision}{'-compiled' if fast.compile else ''}"
        name = f"equal-losses/{model}/digits/{device}-{how}"
        found.append(
            figure(name, differences.value, "loss", f"eager fp32, {reference:.4f}", ours / reference, differences.stderr)
        )
        found.append(figure(f"{name}/image-error", clustered_mean(pairs[0][0]).stderr, "loss"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for found in rows(args.device, args.quick):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
