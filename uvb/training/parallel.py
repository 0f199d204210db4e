"""The little that plain data parallelism needs: who am I, sum over workers, agree on a number, on what went wrong."""

import time

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """(0, 1) outside a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of `value` over all workers, on each of them."""
    value = value.clone()
    if rank_and_world()[1] > 1:
        dist.all_reduce(value)
    return value


def first_of_all(line: str) -> str:
    """The first rank's line that is not empty, on every rank; "" where all are."""
    lines = [line]
    if rank_and_world()[1] > 1:
        lines = [""] * rank_and_world()[1]
        dist.all_gather_object(lines, line)
    return next(filter(None, lines), "")


class Pacer:
    """Says at which steps to pause for what costs a synchronization, about every `seconds`.

    Rank 0 measures, and at each pause tells the others the next one; between pauses nobody waits for anybody.
    """

    def __init__(self, seconds: float, device: torch.device) -> None:
        self.seconds, self.device = seconds, device
        self.count, self.next, self.last_count, self.last_time = 0, 1, 0, time.monotonic()

    def due(self) -> bool:
        """Call once a step; True on every worker at the same steps."""
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
