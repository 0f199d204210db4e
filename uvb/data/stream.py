"""Give images to the training steps. Images that do not fit on the device are read ahead by a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from uvb.machine import usable_memory

GPU_SHARE = 0.4  # images may take up to this share of a GPU's free memory
RAM_SHARE = 0.5  # on a CPU images may take up to this share of the usable memory; a larger set is streamed
AHEAD = 8  # batches to read in advance


class Rows(Protocol):
    """Training images (N, C, H, W), indexed by an int64 tensor (n,) on `device`."""

    device: torch.device

    def __getitem__(self, index: Tensor) -> Tensor: ...

    def begin(self, order: Tensor, size: int, step: int, mine: slice) -> None:
        """Announce the next batches: for k = step, step + 1, ..., the rows ``order[k * size : (k + 1) * size][mine]``.

        `mine` is the part of a batch that this worker computes.
        """


def rows_on(pixels: Tensor, device: torch.device) -> Rows:
    """Prepare uint8 images for training on `device`: as one tensor on the device, or streamed if they are too large.

    On a CPU a memory-mapped set stays memory-mapped. `Resident` and `Streamed` give the same pixels.
    """
    if device.type == "cuda":
        return Resident(pixels.to(device)) if fits(pixels, device) else Streamed(pixels, device)
    return Resident(pixels) if pixels.nbytes <= RAM_SHARE * usable_memory() else Streamed(pixels, device)


def on_device_if_it_fits(pixels: Tensor, device: torch.device | str) -> Tensor:
    """Move the images to `device` if they fit there. Otherwise return them, for the caller to move block by block."""
    device = torch.device(device)
    return pixels.to(device) if device.type == "cpu" or fits(pixels, device) else pixels


def fits(pixels: Tensor, device: torch.device) -> bool:
    """Whether the images take no more than their share of a GPU's free memory."""
    return pixels.nbytes <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]


class Resident:
    """Images in one tensor."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.device = pixels, pixels.device

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.pixels[index]

    def begin(self, order: Tensor, size: int, step: int, mine: slice) -> None: ...


class Streamed:
    """Images that a thread collects before the steps need them. Images for a GPU are collected in pinned memory.

    Args:
        pixels: uint8 (N, C, H, W), on the CPU.
        target: the device of the batches.
    """

    def __init__(self, pixels: Tensor, target: torch.device) -> None:
        self.pixels, self.target, self.device = pixels, target, pixels.device
        self._ahead: deque[tuple[Tensor, Future[Tensor]]] = deque()
        self._coming: Iterator[Tensor] = iter(())
        self._pool = ThreadPoolExecutor(1)

    def begin(self, order: Tensor, size: int, step: int, mine: slice) -> None:
        self._cancel()
        self._coming = (order[start : start + size][mine] for start in range(step * size, len(order), size))
        for _ in range(AHEAD):
            self._read_next()

    def __getitem__(self, index: Tensor) -> Tensor:
        if not self._ahead or not torch.equal(self._ahead[0][0], index):
            raise IndexError("these rows are not the next ones that `begin` announced")
        _, batch = self._ahead.popleft()
        self._read_next()
        return batch.result().to(self.target, non_blocking=True)

    def __del__(self) -> None:
        self._cancel()
        self._pool.shutdown(wait=False)

    def _read_next(self) -> None:
        """Let the thread read the next announced batch, if there is one."""
        index = next(self._coming, None)
        if index is not None:
            self._ahead.append((index, self._pool.submit(_gather, self.pixels, index, self.target.type == "cuda")))

    def _cancel(self) -> None:
        while self._ahead:
            self._ahead.popleft()[1].cancel()


def _gather(pixels: Tensor, index: Tensor, pinned: bool) -> Tensor:
    block = torch.empty(len(index), *pixels.shape[1:], dtype=torch.uint8, pin_memory=pinned)
    np.take(pixels.numpy(), index.numpy(), axis=0, out=block.numpy(), mode="clip")  # "clip" writes straight into `out`
    return block
