"""Steps of narrow networks on 8x8 images: convolutions as matrix products against torch's own, least time of many steps.

python -m benchmarks.cpu.small_images            # a Markdown table, milliseconds and ratios
"""

import argparse
import dataclasses
import time

from uvb.data import load_dataset
from uvb.models import get_model
from uvb.models.capacity import default_widths
from uvb.plan import Plan, has_fast_bf16
from uvb.spec import RECIPES, DataRef, RunSpec
from uvb.training.loop import fit
from uvb.training.state import TrainState


def least_step_seconds(spec: RunSpec, plan: Plan, steps: int) -> float:
    """The least CPU time of one optimizer step of `spec`; the first one, which warms up, is left out."""
    images = load_dataset("digits")
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
    steps = parser.parse_args().steps
    images = load_dataset("digits")
    data = DataRef(images.name, images.checksum, images.shape, len(images.train))
    print("| model, precision | own kernels, ms | products, ms | times faster |\n|---|---:|---:|---:|")
    for name in ("uvb", "deen", "vae"):
        spec = RunSpec(data, name, default_widths(name, images.shape), 1.0, get_model(name).objective, RECIPES["fast"])
        for precision in ("fp32", "bf16") if has_fast_bf16("cpu") else ("fp32",):
            plain = Plan(precision=precision)
            plans = (plain, dataclasses.replace(plain, products=True))
            own, product = (1e3 * least_step_seconds(spec, plan, steps) for plan in plans)
            print(f"| {name}, {precision} | {own:.1f} | {product:.1f} | {own / product:.2f} |", flush=True)


if __name__ == "__main__":
    main()
