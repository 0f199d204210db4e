"""Sample by walk-jump from a trained energy, in this process. Refuse a walk that does not fit into memory."""

import math
import sys
import time
from collections.abc import Iterable, Iterator

import torch
from rich.progress import track
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.errors import UserError
from uvb.machine import usable_memory
from uvb.models.base import Energy
from uvb.plan import Plan
from uvb.sampling.chains import WalkState, begin
from uvb.sampling.walk_jump import Jump, WalkJump, walk_jump

LINE_SECONDS = 5.0  # between two lines of progress if stdout is not a terminal
WALK_ARRAYS = 4  # positions, velocities, gradients and noise of all chains; a walk also keeps the jumps and a copy of them
FLOAT_BYTES = 4


def require_memory(chains: int, walk: WalkJump, shape: tuple[int, ...]) -> None:
    """Raise a UserError if a walk does not fit into memory. The message has both figures."""
    needed = FLOAT_BYTES * math.prod(shape) * chains * (2 * walk.jumps + WALK_ARRAYS)
    if needed > usable_memory():
        asked = f"--chains {chains:,} and --jumps {walk.jumps:,} need at least {needed / 1e9:,.0f} GB"
        raise UserError(f"{asked}, but this machine has {usable_memory() / 1e9:,.0f} GB; choose fewer")


def walked(energy: Energy, walk: WalkJump, chains: int, seed: int, plan: Plan) -> tuple[Tensor, WalkState]:
    """The jumps of a walk, (jumps, chains, C, H, W), and its last state. The walk ends early if every chain has diverged.

    Raises:
        UserError: every chain diverged before the first jump.
    """
    state = start = begin(chains, energy.spec.data.shape, seed, device=plan.device)
    jumps = []
    for now, jump in shown(walk_jump(Frozen(energy, plan), start, walk, seed), walk.jumps):
        state = now
        if not bool(jump.alive.any()):
            break
        jumps.append(jump.x_hat.float().cpu())
    if not jumps:
        raise UserError("every chain diverged before the first jump; try a smaller --delta")
    diverged = (~state.alive).nonzero().flatten().tolist()
    if diverged:
        first = min(int(state.stopped_at[chain]) for chain in diverged)
        print(f"{len(diverged)} of {chains} chains diverged, the first at step {first}; try a smaller --delta")
    return torch.stack(jumps), state


def shown(jumps: Iterable[tuple[WalkState, Jump]], total: int) -> Iterator[tuple[WalkState, Jump]]:
    """Yield `jumps` and show the progress: by a bar on a terminal, otherwise by a line every few seconds."""
    if sys.stdout.isatty():
        yield from track(jumps, "jumps", total, transient=True)
        return
    printed = time.monotonic()
    for count, each in enumerate(jumps, 1):
        if time.monotonic() - printed >= LINE_SECONDS:
            printed = time.monotonic()
            print(f"{count} of {total} jumps", flush=True)
        yield each
