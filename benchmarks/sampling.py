"""Time walk-jump sampling with 1, 100 and 1,000 chains: Langevin steps per second, compared with a straightforward loop.

python -m benchmarks.sampling [--quick]

Each loop (the straightforward one, and ours in each precision) runs in its own process. The processes step in turn.
"""

import math
import warnings
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import Row, Side, Step, in_turn, print_rows, row, setting
from uvb.accelerate.cpu import keep_large_buffers
from uvb.accelerate.frozen import Frozen
from uvb.models import get_model, nets
from uvb.models.base import Energy
from uvb.plan import Plan, has_fast_bf16
from uvb.sampling.chains import begin
from uvb.sampling.langevin import langevin_step

SHAPE = (1, 28, 28)
DELTA = 0.2


def first_written_step(energy: Energy, y: Tensor) -> Tensor:
    """The straightforward step of Eq. 19: autograd also tracks the weights, and noise comes from the global generator."""
    y = y.detach().requires_grad_()
    eps = torch.randn(len(y), energy.noise_dim, device=y.device)
    with setting(nets, "convolve", torch.conv2d):  # torch's own derivatives, not our hand-written ones
        (gradient,) = torch.autograd.grad(energy.energy(y, eps).sum(), y)
    return y.detach() - DELTA**2 * gradient + math.sqrt(2) * DELTA * torch.randn_like(y)


def walks(kind: str, device: str, sizes: tuple[int, ...]) -> dict[str, Step]:
    """Build one walk step for each number of chains.

    `kind` is "first" (the straightforward loop), or the precision of our loop.
    """
    energy = get_model("uvb").build(SHAPE, get_model("uvb").widths, "silu", 1.0).to(device)
    assert isinstance(energy, Energy)
    states = {chains: begin(chains, SHAPE, 0, device=device) for chains in sizes}

    def first(chains: int) -> None:
        states[chains] = states[chains]._replace(y=first_written_step(energy, states[chains].y))

    if kind == "first":
        return {str(chains): partial(first, chains) for chains in sizes}
    warnings.filterwarnings("error", message="CUDA graph failed")
    held = Frozen(energy, Plan(device=device, precision=kind, graph=device == "cuda"))
    if device == "cpu":
        keep_large_buffers()

    def ours(chains: int) -> None:
        states[chains] = langevin_step(held, states[chains], 0, delta=DELTA, batch=256 if device == "cpu" else None)

    return {str(chains): partial(ours, chains) for chains in sizes}


def rows(device: str, quick: bool = False) -> list[Row]:
    """Rows for each number of chains, in fp32 and, where the hardware has it, bf16."""
    sizes = (1, 10) if quick else (1, 100, 1000)
    kinds = ("first", "fp32", *(["bf16"] if has_fast_bf16(device) else []))
    sides = {kind: Side(walks, kind, device, sizes, device=device) for kind in kinds}
    repeats = {1: 21, 10: 5, 100: 9, 1000: 5} if device == "cpu" else {1: 50, 10: 50, 100: 50, 1000: 20}
    found: list[Row] = []
    for chains in sizes:
        timers = [partial(each.time, str(chains)) for each in sides.values()]
        first, *times = in_turn(timers, repeats=3 if quick else repeats[chains], warm_up=2)
        for precision, ours in zip(kinds[1:], times, strict=True):
            name = f"sampling/uvb/mnist/{chains}-chains/{device}-{precision}"
            found.append(row(name, ours, "first-written loop, fp32", first, unit="chain steps/s", work=chains))
    for each in sides.values():
        each.close()
    return found


if __name__ == "__main__":
    print_rows(__doc__, rows)
