"""Time steps with one worker of two threads and with two workers of one: what data parallelism costs on this machine.

python -m benchmarks.cpu.workers [--quick]

Workers are processes joined by gloo, as Ray Train joins them on CPUs. Each runs `uvb.training.loop.fit` on random images.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.measure import Row, row
from uvb.data import ImageSet
from uvb.machine import usable_cpus
from uvb.models.capacity import default_widths
from uvb.noise import generator
from uvb.plan import Plan, has_fast_bf16
from uvb.spec import RECIPES, DataRef, RunSpec, Shape
from uvb.training.loop import fit
from uvb.training.state import TrainState

SHAPES: dict[str, Shape] = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}
BATCH = 128  # the paper's
STEPS = {"digits": 24, "mnist": 4}  # in an epoch


def work(rank: int, workers: int, folder: str, model: str, data: str, epochs: int) -> None:
    """Run one worker; rank 0 writes the seconds a step of each epoch but the first."""
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers)
    shape, recipe = SHAPES[data], RECIPES["fast"].changed(epochs=epochs, batch_size=BATCH)
    count = STEPS[data] * recipe.batch_size
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator(0, "random images"))
    images = ImageSet("random", pixels, pixels[:8])
    spec = RunSpec(
        DataRef("random", images.checksum, shape, count), model, default_widths(model, shape), 1.0, "denoise", recipe
    )
    precision = "bf16" if has_fast_bf16("cpu") else "fp32"
    plan = Plan(workers, precision=precision, threads=max(1, usable_cpus() // workers))
    state = TrainState.fresh(spec, plan)
    for _ in fit(spec, plan, state, images, pulse_seconds=1e9):
        pass
    if rank == 0:
        seconds = [recipe.batch_size / m.images_per_second for m in state.curves[1:]]
        (Path(folder) / "seconds.json").write_text(json.dumps(seconds))
    if workers > 1:
        dist.barrier()
        os._exit(0)  # gloo's own threads may abort while Python shuts down


def step_times(workers: int, model: str, data: str, epochs: int) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="uvb-workers-") as folder:
        spawn(work, (workers, folder, model, data, epochs), nprocs=workers)
        times: list[float] = json.loads((Path(folder) / "seconds.json").read_text())
    return times


def rows(model: str, data: str, epochs: int, repeats: int) -> list[Row]:
    """Rows of one worker and two, from the medians of runs taken in turn."""
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for workers, found in times.items():
            found.append(statistics.median(step_times(workers, model, data, epochs)))
    name = f"workers/{model}/{data}"
    return [
        row(f"{name}/1-of-{usable_cpus()}-threads", times[1], unit="steps/s"),
        row(f"{name}/2-of-{max(1, usable_cpus() // 2)}-threads", times[2], "1 worker", times[1], unit="steps/s"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    for data in ("digits",) if args.quick else tuple(SHAPES):
        for model in ("uvb", "deen"):
            for found in rows(model, data, 2 if args.quick else 3, 1 if args.quick else 3):
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
