"""Measure how long steps take, side by side. Make rows ``{name, value, unit, reference, ratio, spread, ...}`` of the times."""

import argparse
import datetime
import json
import multiprocessing
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pipelines.study.provenance import cpu_name
from uvb.errors import first_line

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, Any]
Step = Callable[[], object]


@contextmanager
def setting(of: Any, name: str, value: object) -> Iterator[None]:
    """Change a global setting, such as `torch.backends.cudnn.allow_tf32`, for the length of a block."""
    before = getattr(of, name)
    setattr(of, name, value)
    try:
        yield
    finally:
        setattr(of, name, before)


@contextmanager
def no_fallback() -> Iterator[None]:
    """Raise if torch.compile or a CUDA graph fails. Otherwise the slower fallback would be timed in its place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(torch.compile|CUDA graph) failed")
        yield


def seconds_of(step: Step, device: str, inner: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call of `step`: the mean over `inner` calls, until the device has ended all of them."""
    wait(device)
    started = clock()
    for _ in range(inner):
        step()
    wait(device)
    return (clock() - started) / inner


def in_turn(timers: list[Callable[[], float]], *, repeats: int, warm_up: int = 1) -> list[list[float]]:
    """Run all timers `repeats` times in turn, so that a slow spell of the machine slows all. Return each timer's times."""
    for timer in timers * warm_up:
        timer()
    rounds = [[timer() for timer in timers] for _ in range(repeats)]
    return [list(times) for times in zip(*rounds, strict=True)]


def seconds_side_by_side(
    steps: dict[str, Step], *, repeats: int, inner: int = 1, warm_up: int = 2, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each step, timed in turn in this process (`seconds_of`, `in_turn`)."""
    timers = [partial(seconds_of, step, device, inner) for step in steps.values()]
    return dict(zip(steps, in_turn(timers, repeats=repeats, warm_up=warm_up), strict=True))


SIDE_SECONDS = 300.0  # how long one action of a side may take


class Side:
    """One side of a comparison in its own process, so that each side has its own memory settings.

    `build(*args)` runs in that process and returns the actions, which are the steps to time, by name. `build` must be
    importable. With `cpu_time` the seconds are the CPU time of the thread that runs the actions.
    """

    def __init__(self, build: Callable[..., dict[str, Step]], *args: Any, device: str = "cpu", cpu_time: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, build, args, device, cpu_time), daemon=True)
        self.process.start()

    def time(self, action: str) -> float:
        """Seconds of one call of `action`, until the device has ended it."""
        self.pipe.send(action)
        if not self.pipe.poll(SIDE_SECONDS):
            self.process.kill()
            raise RuntimeError(f"{action}: no answer within {SIDE_SECONDS:g} s")
        seconds: float = self.pipe.recv()
        return seconds

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


def _serve(pipe: Connection, build: Callable[..., dict[str, Step]], args: tuple, device: str, cpu_time: bool) -> None:
    clock = time.thread_time if cpu_time else time.perf_counter  # on a CPU the backward pass runs on this thread too
    actions = build(*args)
    while asked := pipe.recv():
        pipe.send(seconds_of(actions[asked], device, clock=clock))


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class DeviceLost(RuntimeError):
    """A CUDA error after which the process cannot use the device. It causes all later failures."""


def require_alive(device: str) -> None:
    """Raise DeviceLost if the device no longer answers. Callers record a failure before they call this."""
    try:
        wait(device)
    except RuntimeError as error:
        raise DeviceLost(first_line(error)) from error


def row(
    name: str,
    times: list[float],
    reference: str | None = None,
    against: list[float] | None = None,
    *,
    unit: str = "s",
    work: float = 1.0,
) -> Row:
    """Make a row from the seconds of calls.

    `value` is the median of the times. For a unit such as "images/s" it is `work` (images in one call) over the median. `ratio`
    says how many times faster the calls are than the reference. `spread` is half the range between quartiles, over the median.
    """
    median = statistics.median(times)
    value = work / median if unit.endswith("/s") else median
    ratio = statistics.median(against) / median if against else None
    return figure(name, value, unit, reference, ratio, spread(times))


def figure(
    name: str, value: float, unit: str, reference: str | None = None, ratio: float | None = None, spread: float | None = None
) -> Row:
    """Make a row from a value. The row also has the machine, the time and the commit."""
    return {
        "name": name, "value": value, "unit": unit, "reference": reference, "ratio": ratio, "spread": spread,
        "machine": machine(), "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": commit(),
    }  # fmt: skip


def spread(times: list[float]) -> float | None:
    if len(times) < 3:
        return None
    low, _, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / statistics.median(times)


@cache
def machine() -> str:
    """The machine, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = {"amx_bf16": " with AMX", "avx512_bf16": " with bf16"}
    bf16 = next((words for flag, words in known.items() if flag in cpuinfo), "")
    return f"{cpuinfo.count('model name') or '?'} cores {cpu_name()}{bf16}, torch {torch.__version__}"


@cache
def commit() -> str:
    """The measured commit, with "+" if the tree differs from it.

    A GPU machine may lack the repository, or this commit. So `benchmarks.gpu.transfer pack` writes the commit's
    name into a file, which goes to that machine with the data.
    """
    packed = ROOT / ".gpu_data" / "commit.txt"
    git = ["git", "-C", str(ROOT)]
    try:
        if packed.exists():
            # This raises if git does not know the packed commit. Then the answer is the name in the file.
            known = [*git, "cat-file", "-e", packed.read_text().strip().removesuffix("+")]
            subprocess.run(known, capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
        return head.strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return packed.read_text().strip() if packed.exists() else "unknown"


def short(revision: str | None, digits: int = 12) -> str:
    """The first digits of a commit. A mark at the end ("+" or "+changes": the tree differed from the commit) becomes "+"."""
    commit, mark, _ = (revision or "unknown").partition("+")
    return commit[:digits] + mark


def print_rows(text: str | None, rows: Callable[..., Iterable[Row]]) -> None:
    """Run a benchmark as a command: read --quick and --device, run `rows`, and print one JSON row per line."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for found in rows(args.device, args.quick):
        print(json.dumps(found), flush=True)
