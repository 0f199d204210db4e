"""Measure what data parallelism costs: steps by one worker on all CPUs, and by two workers on half of the CPUs each.

python -m benchmarks.cpu.workers [--quick]

Workers are processes joined by gloo, as Ray Train joins them on CPUs. Each runs `uvb.training.loop.fit` on random images.
"""

import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.measure import Row, print_rows, row
from benchmarks.training import SHAPES, cpu_plan, random_images, spec_on, trained
from uvb.machine import usable_cpus
from uvb.spec import RECIPES

BATCH = 128  # the paper's
STEPS = {"digits": 24, "mnist": 4}  # in an epoch


def work(rank: int, workers: int, folder: str, model: str, data: str, epochs: int) -> None:
    """Run one worker. Rank 0 writes the seconds per step of each epoch after the first."""
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers)
    images = random_images(SHAPES[data], STEPS[data] * BATCH)
    spec = spec_on(images, model, RECIPES["fast"].changed(epochs=epochs, batch_size=BATCH))
    plan = dataclasses.replace(cpu_plan(max(1, usable_cpus() // workers)), workers=workers)
    curves = trained(spec, plan, images).curves
    if rank == 0:
        (Path(folder) / "seconds.json").write_text(json.dumps([BATCH / m.images_per_second for m in curves[1:]]))
    if workers > 1:
        dist.barrier()
        os._exit(0)  # gloo's own threads may abort while Python shuts down


def step_seconds(workers: int, model: str, data: str, epochs: int) -> float:
    """The median seconds of a step."""
    with tempfile.TemporaryDirectory(prefix="uvb-workers-") as folder:
        spawn(work, (workers, folder, model, data, epochs), nprocs=workers)
        return statistics.median(json.loads((Path(folder) / "seconds.json").read_text()))


def rows(device: str, quick: bool = False) -> Iterator[Row]:
    """Time one worker and two workers in turn. Yield a row for each."""
    epochs, repeats = (2, 1) if quick else (3, 3)
    for data in ("digits",) if quick else ("digits", "mnist"):
        for model in ("uvb", "deen"):
            times: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(repeats):
                for workers, found in times.items():
                    found.append(step_seconds(workers, model, data, epochs))
            name = f"workers/{model}/{data}"
            yield row(f"{name}/1-of-{usable_cpus()}-threads", times[1], unit="steps/s")
            second = f"{name}/2-of-{max(1, usable_cpus() // 2)}-threads"
            yield row(second, times[2], "1 worker", times[1], unit="steps/s")


if __name__ == "__main__":
    print_rows(__doc__, rows)
