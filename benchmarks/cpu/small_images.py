"""Time narrow networks on 8×8 images, with convolutions as matrix products and with torch's own kernels.

python -m benchmarks.cpu.small_images     # prints a Markdown table: milliseconds of the fastest step, and ratios
"""

import argparse
import dataclasses
import time

from benchmarks.training import spec_on
from uvb.data import ImageSet, load_dataset
from uvb.plan import Plan, has_fast_bf16
from uvb.spec import RECIPES, RunSpec
from uvb.training.loop import fit
from uvb.training.state import TrainState


def least_step_seconds(spec: RunSpec, plan: Plan, images: ImageSet, steps: int) -> float:
    """The least CPU time of one optimizer step of `spec`. The first step, and steps that end an epoch, do not count."""
    progress = fit(spec, plan, TrainState.fresh(spec, plan), images, pulse_seconds=0.0)  # yields at every step
    next(progress)
    found = []
    for _ in range(steps):
        started = time.thread_time()
        inside_epoch = next(progress).metrics is None
        if inside_epoch:
            found.append(time.thread_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    steps, images = parser.parse_args().steps, load_dataset("digits")
    print("| model, precision | torch's kernels, ms | products, ms | speed-up |\n|---|---:|---:|---:|")
    for name in ("uvb", "deen", "vae"):
        spec = spec_on(images, name, RECIPES["fast"])
        for precision in ("fp32", "bf16") if has_fast_bf16("cpu") else ("fp32",):
            plain = Plan(precision=precision)
            plans = (plain, dataclasses.replace(plain, products=True))
            own, product = (1e3 * least_step_seconds(spec, plan, images, steps) for plan in plans)
            print(f"| {name}, {precision} | {own:.1f} | {product:.1f} | {own / product:.2f} |", flush=True)


if __name__ == "__main__":
    main()
