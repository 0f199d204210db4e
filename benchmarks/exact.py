"""Time the exact Bayes estimator of 10,000 noisy MNIST images, given 60,000 training images, and measure its memory.

python -m benchmarks.exact [--quick]
"""

import contextlib
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import ROOT, Row, figure, print_rows, row, seconds_side_by_side, wait
from uvb.data import load_dataset
from uvb.errors import UserError
from uvb.exact.empirical_bayes import posterior_mean, working_bytes
from uvb.noise import generator, normal

SIGMA = 1.0
SIDE_BY_SIDE = 1000  # noisy images in the comparison. With more, the straightforward estimator would need too much memory


def first_written(y: Tensor, train: Tensor) -> Tensor:
    """The straightforward estimator: all distances in one matrix, a softmax, a product."""
    x = train.flatten(1).to(y.dtype) / 255
    weights = torch.softmax(-torch.cdist(y.flatten(1), x).square() / (2 * SIGMA**2), dim=1)  # (B, N)
    return (weights @ x).reshape(y.shape)


def mnist(train_images: int, test_images: int) -> tuple[str, Tensor, Tensor]:
    """Return a name, training pixels and test pixels. If MNIST is not in `shared/data` beside the checkout, they are random."""
    try:
        images = load_dataset("mnist", ROOT.parent / "shared" / "data", download=False)
        return "mnist", images.train[:train_images], images.test[:test_images]
    except UserError:
        g = generator(0, "pixels")
        pixels = torch.randint(0, 256, (train_images + test_images, 1, 28, 28), generator=g, dtype=torch.uint8)
        return "random", pixels[:train_images], pixels[train_images:]


def rows(device: str, quick: bool = False) -> list[Row]:
    """The seconds and bytes for all images, and a comparison with `first_written` on fewer images."""
    n, b, part = (5000, 500, 250) if quick else (60_000, 10_000, SIDE_BY_SIDE)
    name, train, test = mnist(n, b)
    train = train.to(device)
    y = test.to(device).float() / 255 + SIGMA * normal(tuple(test.shape), 0, "noise", device=device)
    few = y[:part]
    if device == "cuda":  # warm up with several blocks of training images: some kernels run only from the second block on
        posterior_mean(few, train[: len(train) // 4], SIGMA)
    else:
        # Warm up with few images: the process keeps freed memory, and the measurement misses memory that is used again.
        posterior_mean(few[:32], train[:1024], SIGMA)
    reset_peak(device)
    before = peak(device)
    wait(device)
    started = time.perf_counter()
    posterior_mean(y, train, SIGMA)
    wait(device)
    seconds, after = time.perf_counter() - started, peak(device)
    gap = float((posterior_mean(few, train, SIGMA) - first_written(few, train)).abs().max())
    assert gap < 1e-3, f"the two estimators differ by {gap}"
    steps = {"first": lambda: first_written(few, train), "blocks": lambda: posterior_mean(few, train, SIGMA)}
    times = seconds_side_by_side(steps, repeats=3 if device == "cpu" else 10, warm_up=1, device=device)
    whole, d = f"exact/{name}/{len(y)}x{n}", y[0].numel()
    found = [
        row(f"exact/{name}/{len(few)}x{n}/{device}-fp32", times["blocks"], "the whole matrix at once", times["first"]),
        figure(f"{whole}/{device}-fp32", seconds, "s"),
    ]
    sizes = {"bytes": working_bytes(len(y), n, d)}
    if before is not None and after is not None:
        sizes[f"bytes-measured/{device}"] = after - before
    matrix = 4 * len(y) * n
    for what, size in sizes.items():
        found.append(figure(f"{whole}/{what}", size, "bytes", "one (B, N) matrix", matrix / max(size, 1)))
    return found


def reset_peak(device: str) -> None:
    """Forget the largest memory so far: of torch's allocator on CUDA, and of the process on Linux."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> int | None:
    """The largest memory since `reset_peak`, in bytes. None if the system does not tell it."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)


if __name__ == "__main__":
    print_rows(__doc__, rows)
