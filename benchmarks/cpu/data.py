"""Measure the time and the memory of converting image sets, of opening them, and of training from the disk.

python -m benchmarks.cpu.data [--quick] [--only convert open train large] [--large-gb 20] [--folder FOLDER]

    convert  50,000 PNGs of 32×32: seconds and memory. Reference: threads decode them into memory
    open     1.3 million images (4 GB): seconds and private memory of a process that opens the converted set
    train    images/s of the paper's UVB from the memory-mapped file. Reference: the same images in memory
    large    20 GB of images with 4 GB of memory (ulimit -d): losses of the first steps. Reference: the same images in memory

Each side of a comparison runs in its own process. FOLDER needs 30 GB, which are freed at the end. By default it is temporary.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.measure import ROOT, Row, figure, setting
from benchmarks.training import SHAPES, cpu_plan, spec_on
from uvb.data import ImageSet, load_dataset
from uvb.data.image_file import Contents, ImageFile
from uvb.data.stream import Resident, rows_on
from uvb.machine import usable_memory
from uvb.spec import RECIPES, Widths
from uvb.training import batch, loop
from uvb.training.state import TrainState

SHAPE = SHAPES["cifar10"]
# "png", "open", "large": the number of images in these sets. "steps": training steps to compare. "turns": how often to repeat a
# comparison. "limit": bytes of memory for "large". "paper": 1 if "train" has the paper's widths.
FULL = {"png": 50_000, "open": 1_300_000, "large": 6_600_000, "steps": 6, "turns": 3, "limit": 4 << 30, "paper": 1}
QUICK = {"png": 300, "open": 3_000, "large": 6_000, "steps": 3, "turns": 1, "limit": 4 << 30, "paper": 0}
NARROW = Widths(conv=(4, 8), hidden=16, latent=8, decoder=32)
PATTERNS = 1021  # how many different patterns the synthetic images have


@cache
def patterns() -> NDArray[np.uint8]:
    """Smooth patterns, (1021, 3, 32, 32)."""
    y, x = np.mgrid[0:32, 0:32]
    row = np.arange(PATTERNS)[:, None, None, None]
    phase = row * np.array([7, 11, 13])[:, None, None]
    return (phase + (row % 17 + 1) * (x * np.array([1, 2, 3])[:, None, None] + y)).astype(np.uint8)


def made(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Synthetic images (n, 3, 32, 32), one for each row number: a pattern plus a constant, with the row number in a corner."""
    images = patterns()[rows % PATTERNS]
    images += (rows // PATTERNS).astype(np.uint8)[:, None, None, None]
    images[:, 0, 0, :4] = (rows[:, None] >> np.array([0, 8, 16, 24])) & 255
    return images


def write_pngs(folder: Path, count: int) -> None:
    for at in range(0, count, 1000):
        (folder / f"{at // 1000:03d}").mkdir(parents=True)
        for number, image in enumerate(made(np.arange(at, min(at + 1000, count)))):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{at // 1000:03d}" / f"{number:03d}.png")


def write_set(path: Path, count: int, test: int = 1024) -> str:
    """Write a converted set of `count` images. The last `test` images are its test set. Return its checksum."""
    rows = (np.arange(at, min(at + 8192, count)) for at in range(0, count, 8192))
    return ImageFile(path, Contents("synthetic", SHAPE, count - test, test)).fill(map(made, rows))


def private_bytes(pid: int) -> int:
    """Bytes of memory of a process and its children, without the page cache, which the system can free."""
    total = 0
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) << 10
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += private_bytes(int(child))
    return total


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """Collect the bytes by which the private memory of this process and its children grows during the block."""
    before, grown, end = private_bytes(os.getpid()), [0], threading.Event()

    def look() -> None:
        grown.append(private_bytes(os.getpid()) - before)

    def watch() -> None:
        while not end.wait(0.05):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        end.set()
        thread.join()
        look()


def side(name: str, *arguments: object, cache: Path, limit: int = 0) -> dict[str, Any]:
    """Run one side of a comparison in its own process, with at most `limit` bytes of data (0: no limit). Return its JSON."""
    command = [sys.executable, "-m", "benchmarks.cpu.data", "--side", name, *map(str, arguments)]

    def restrict() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    run = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, preexec_fn=restrict, env=os.environ | {"UVB_CACHE": str(cache)}
    )
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: {run.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


def decode_into_memory(folder: str) -> dict[str, Any]:
    """Read a folder as an early version of this project did: threads decode all pictures into an array. Shuffle and hash it."""
    started = time.perf_counter()
    with watched_memory() as grown:
        files = sorted(path for path in Path(folder).rglob("*") if path.suffix == ".png" and path.is_file())
        pixels = np.empty((len(files), *SHAPE), np.uint8)

        def fill(start: int) -> None:
            for index in range(start, min(start + 128, len(files))):
                with Image.open(files[index]) as picture:
                    pixels[index] = np.asarray(picture).transpose(2, 0, 1)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(fill, range(0, len(files), 128)))
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
        train = torch.from_numpy(pixels)[order]
        checksum = ImageSet("once", train[len(train) // 10 :], train[: len(train) // 10]).checksum
    return {"seconds": time.perf_counter() - started, "bytes": max(grown), "checksum": checksum}


def convert_folder(folder: str) -> dict[str, Any]:
    started = time.perf_counter()
    with watched_memory() as grown:
        images = load_dataset(folder)
    return {"seconds": time.perf_counter() - started, "bytes": max(grown), "images": len(images.train) + len(images.test)}


def open_set(path: str) -> dict[str, Any]:
    before = private_bytes(os.getpid())
    started = time.perf_counter()
    images = ImageSet.load(path)
    images.train[torch.arange(0, len(images.train), max(1, len(images.train) // 128))]  # about 128 images, evenly spaced
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": private_bytes(os.getpid()) - before, "checksum": images.checksum}


def first_steps(images: ImageSet, widths: Widths | None, train_images: int, steps: int) -> tuple[list[float], list[float]]:
    """Train UVB for some steps. Return the seconds of each step but the first, and the losses of all."""
    spec = spec_on(images, "uvb", RECIPES["fast"].changed(epochs=1), widths=widths, train_images=train_images)
    plan = cpu_plan()
    state, seconds = TrainState.fresh(spec, plan), []
    started = time.perf_counter()
    for progress in loop.fit(spec, plan, state, images, pulse_seconds=0.0):
        seconds.append(time.perf_counter() - started)
        if progress.step >= steps or progress.metrics:
            break
        started = time.perf_counter()
    return seconds[1:], state.step_losses[:steps].tolist()


def train_side(path: str, kind: str, steps: str, paper: str) -> dict[str, Any]:
    """Train UVB on the whole set, with the paper's widths or narrow ones. `kind` is "map" or "memory"."""
    images = ImageSet.load(path)
    checksum = images.checksum
    if kind == "memory":
        images = ImageSet(images.name, images.train.clone(), images.test.clone(), brightest=images.brightest)
        images.__dict__["checksum"] = checksum  # cached, so that the copy is not hashed again
    seconds, losses = first_steps(images, None if int(paper) else NARROW, len(images.train), int(steps))
    return {"seconds": seconds, "losses": losses}


class MadeAgain:
    """Training images that are computed again at every access."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.from_numpy(made(index.numpy()))

    def begin(self, order: Tensor, size: int, step: int, mine: slice) -> None: ...


def large_side(path: str, kind: str, train_images: str, steps: str) -> dict[str, Any]:
    """Train a few steps. `kind` is "disk" or "memory".

    "memory" keeps the images in one tensor if there are at most a million. Otherwise it computes each image when it is needed.
    """
    images, count = ImageSet.load(path), int(train_images)
    reads = type(rows_on(images.train[:count], torch.device("cpu"))).__name__
    rows = rows_on
    if kind == "memory":
        held = MadeAgain() if count > 1_000_000 else Resident(torch.from_numpy(made(np.arange(count))))
        rows = lambda pixels, device: held  # noqa: E731  # one line, used once
    with setting(batch, "rows_on", rows):
        _, losses = first_steps(images, NARROW, count, int(steps))
    return {"losses": losses, "reads": reads, "limit": usable_memory()}


SIDES: dict[str, Callable[..., dict[str, Any]]] = {
    "decode": decode_into_memory, "convert": convert_folder, "open": open_set, "train": train_side, "large": large_side,
}  # fmt: skip


def convert_rows(folder: Path, sizes: dict[str, int]) -> Iterator[Row]:
    write_pngs(folder / "png", sizes["png"])
    name = f"data/convert/{sizes['png']:,}-png"
    ratios, ours, theirs = [], [], []
    for turn in range(sizes["turns"]):
        theirs.append(side("decode", folder / "png", cache=folder / "cache"))
        ours.append(side("convert", folder / "png", cache=folder / f"cache-{turn}"))
        ratios.append(theirs[-1]["seconds"] / ours[-1]["seconds"])
    seconds = statistics.median(one["seconds"] for one in ours)
    yield figure(name, seconds, "s", "decoding into memory by threads", statistics.median(ratios))
    yield figure(f"{name}/memory", max(o["bytes"] for o in ours) / 1e6, "MB", "decoding into memory by threads",
                 max(o["bytes"] for o in theirs) / max(o["bytes"] for o in ours))  # fmt: skip


def open_rows(folder: Path, sizes: dict[str, int]) -> Iterator[Row]:
    checksum = write_set(folder / "open.safetensors", sizes["open"])
    told = [side("open", folder / "open.safetensors", cache=folder) for _ in range(3)]
    assert all(each["checksum"] == checksum for each in told)
    yield figure(f"data/open/{sizes['open']:,}-images", statistics.median(each["seconds"] for each in told), "s")
    yield figure(f"data/open/{sizes['open']:,}-images/memory", max(each["bytes"] for each in told) / 1e6, "MB")


def train_rows(folder: Path, sizes: dict[str, int]) -> Iterator[Row]:
    path = folder / "open.safetensors"
    if not path.exists():
        write_set(path, sizes["open"])
    ratios, rates = [], []
    for _ in range(sizes["turns"]):
        told = {kind: side("train", path, kind, sizes["steps"], sizes["paper"], cache=folder) for kind in ("memory", "map")}
        assert told["memory"]["losses"] == told["map"]["losses"], told
        best = {kind: min(each["seconds"]) for kind, each in told.items()}
        ratios.append(best["memory"] / best["map"])
        rates.append(128 / best["map"])
    rate, ratio = statistics.median(rates), statistics.median(ratios)
    yield figure("data/train/map", rate, "images/s", "the same images in memory", ratio)


def large_rows(folder: Path, sizes: dict[str, int]) -> Iterator[Row]:
    path = folder / "large.safetensors"
    try:
        if not path.exists():
            write_set(path, sizes["large"])
        size = path.stat().st_size / 1e9
        for train_images, what in ((sizes["large"] - 1024, "whole"), (min(100_000, sizes["large"] // 2), "prefix")):
            disk = side("large", path, "disk", train_images, sizes["steps"], cache=folder, limit=sizes["limit"])
            in_memory = side("large", path, "memory", train_images, sizes["steps"], cache=folder)
            assert disk["losses"] == in_memory["losses"], (disk, in_memory)
            assert disk["limit"] <= sizes["limit"]
            reader = f"{disk['reads']} with {disk['limit'] / 1e9:.1f} GB of memory"
            print(f"{what}: a file of {size:.1f} GB, read by {reader}; losses {disk['losses']}")
            yield figure(f"data/large/{what}/equal-losses", len(disk["losses"]), "steps", "the same images in memory", 1.0)
    finally:
        path.unlink(missing_ok=True)


STAGES: dict[str, Callable[[Path, dict[str, int]], Iterator[Row]]] = {
    "convert": convert_rows, "open": open_rows, "train": train_rows, "large": large_rows,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--large-gb", type=float, default=None, help="size of the large set; memory is limited to a fifth")
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(SIDES[args.side[0]](*args.side[1:])))
        return
    sizes = dict(QUICK if args.quick else FULL)
    if args.large_gb:
        sizes |= {"large": int(args.large_gb * 1e9) // math.prod(SHAPE), "limit": int(args.large_gb * 1e9 / 5)}
    with tempfile.TemporaryDirectory(prefix="uvb-data-", dir=args.folder) as scratch:
        for stage in args.only:
            for found in STAGES[stage](Path(scratch), sizes):
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
