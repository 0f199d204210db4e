"""Data parallelism: the worker's rank, sums over workers, shared error messages, and the steps at which all workers pause."""

import time

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """This worker's rank and the number of workers. (0, 1) outside a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of `value` over all workers. Every worker gets it."""
    value = value.clone()
    if rank_and_world()[1] > 1:
        dist.all_reduce(value)
    return value


def first_of_all_ranks(line: str) -> str:
    """Gather the `line` of every rank. Every rank gets the first line that is not empty, or "" if all are empty."""
    lines = [line]
    if rank_and_world()[1] > 1:
        lines = [""] * rank_and_world()[1]
        dist.all_gather_object(lines, line)
    return next(filter(None, lines), "")


class Pacer:
    """Choose the steps at which all workers pause to synchronize, about every `seconds`.

    At each pause rank 0 tells the others the step of the next pause. Between pauses no worker waits for another.
    """

    def __init__(self, seconds: float, device: torch.device) -> None:
        self.seconds, self.device = seconds, device
        self.count, self.next, self.last_count, self.last_time = 0, 1, 0, time.monotonic()

    def due(self) -> bool:
        """Whether to pause now. Call this once at every step. All workers get the same answer."""
        self.count += 1
        if self.count < self.next:
            return False
        now = time.monotonic()
        per_step = (now - self.last_time) / (self.count - self.last_count)
        wait = torch.tensor([max(1, round(self.seconds / max(per_step, 1e-6)))], device=self.device)
        if rank_and_world()[1] > 1:
            dist.broadcast(wait, src=0)
        self.last_count, self.last_time = self.count, now
        self.next = self.count + int(wait.item())
        return True
