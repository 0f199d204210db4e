"""Training images where the step needs them: resident on its device where they fit, else streamed ahead of it."""

import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

GPU_SHARE = 0.4  # of a GPU's free memory that images may take
RAM_SHARE = 0.5  # of the machine's memory up to which a map is read where it is used
AHEAD = 8  # batches that are read before they are asked for
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Rows(Protocol):
    """Training images (N, C, H, W), indexed by (n,) int64 on `device`."""

    device: torch.device

    def __getitem__(self, index: Tensor) -> Tensor: ...

    def begin(self, order: Tensor, size: int, step: int, mine: slice) -> None:
        """Say what will be asked for: of batch k = step, step + 1, ..., the rows ``order[k * size : (k + 1) * size][mine]``."""


def rows_on(pixels: Tensor, device: torch.device) -> Rows:
    """The uint8 images, to be used on `device`: as one tensor there, or streamed to it where they are too large for that.

    A memory-mapped set on a CPU is used from its map; the pixels are the same in every case.
    """
    if device.type == "cuda":
        return Resident(pixels.to(device)) if fits(pixels, device) else Streamed(pixels, device)
    return Resident(pixels) if pixels.nbytes <= RAM_SHARE * memory() else Streamed(pixels, device)


def resident(pixels: Tensor, device: torch.device | str) -> Tensor:
    """The images on `device` where they fit, else where they are; for code that takes them block by block."""
    device = torch.device(device)
    return pixels.to(device) if device.type == "cpu" or fits(pixels, device) else pixels


def fits(pixels: Tensor, device: torch.device) -> bool:
    """Whether a GPU has room for the images beside all else."""
    return pixels.nbytes <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less by a container's or a shell's limit."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # "max" means none
            found.append(int(Path(limit).read_text()))
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            found.append(soft)
    return min(found)


class Resident:
    """Images that lie in one tensor."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.device = pixels, pixels.device

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.pixels[index]

    def begin(self, order: Tensor, size: int, step: int, mine: slice) -> None: ...


class Streamed:
    """Images that a thread gathers ahead of the steps, into pinned memory where they go to a GPU.

    Args:
        pixels: uint8 (N, C, H, W), on the CPU.
        target: the device of the batches.
    """

    def __init__(self, pixels: Tensor, target: torch.device) -> None:
        self.pixels, self.target, self.device = pixels, target, pixels.device
        self._stop: threading.Event | None = None

    def begin(self, order: Tensor, size: int, step: int, mine: slice) -> None:
        self.close()
        self._stop, self._ahead = threading.Event(), Queue[tuple[Tensor, Tensor] | Exception](AHEAD)
        pinned = self.target.type == "cuda"
        arguments = (self.pixels, order, size, step, mine, pinned, self._ahead, self._stop)
        threading.Thread(target=_gather_ahead, args=arguments, daemon=True).start()

    def __getitem__(self, index: Tensor) -> Tensor:
        found = self._ahead.get() if self._stop else None
        if isinstance(found, Exception):
            raise found
        if found is None or not torch.equal(found[0], index):
            raise IndexError("these rows are not the next ones that `begin` announced")
        return found[1].to(self.target, non_blocking=True)

    def close(self) -> None:
        """End the thread."""
        if self._stop:
            self._stop.set()
            with suppress(Empty):
                while True:
                    self._ahead.get_nowait()

    def __del__(self) -> None:
        self.close()


def _gather_ahead(
    pixels: Tensor,
    order: Tensor,
    size: int,
    step: int,
    mine: slice,
    pinned: bool,
    ahead: "Queue[tuple[Tensor, Tensor] | Exception]",
    stop: threading.Event,
) -> None:
    """Read batch after batch of an epoch into `ahead`, which holds `AHEAD` of them."""
    source = pixels.numpy()
    for start in range(step * size, len(order), size):
        found: tuple[Tensor, Tensor] | Exception
        try:
            index = order[start : start + size][mine]
            block = torch.empty(len(index), *pixels.shape[1:], dtype=torch.uint8, pin_memory=pinned)
            np.take(source, index.numpy(), axis=0, out=block.numpy(), mode="clip")  # clip: straight into `out`
            found = index, block
        except Exception as error:  # raised where the batch is asked for
            found = error
        while not stop.is_set():
            try:
                ahead.put(found, timeout=0.2)
                break
            except Full:
                continue
        if stop.is_set() or isinstance(found, Exception):
            return
