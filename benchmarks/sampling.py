"""Walk-jump sampling: Langevin steps a second with 1, 100 and 1,000 chains, against the loop one would first write.

python benchmarks/sampling.py [--quick]
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from measure import Row, row, seconds_side_by_side
from torch import Tensor

from uvb.chains import begin
from uvb.estimator import Energy
from uvb.langevin import langevin_step
from uvb.models import get_model
from uvb.plan import Plan, has_fast_bf16

SHAPE = (1, 28, 28)
DELTA = 0.2


def first_written_step(energy: Energy, y: Tensor) -> Tensor:
    """Eq. 19 as one would first write it: autograd through a model that also gathers its weights' graph, global noise."""
    y = y.detach().requires_grad_()
    eps = torch.randn(len(y), energy.noise_dim, device=y.device)
    (gradient,) = torch.autograd.grad(energy.energy(y, eps).sum(), y)
    return y.detach() - DELTA**2 * gradient + math.sqrt(2) * DELTA * torch.randn_like(y)


def rows(device: str, quick: bool = False) -> list[Row]:
    """A row for each number of chains, in fp32 and, where the hardware has it, bf16."""
    widths = get_model("uvb").widths
    first = get_model("uvb").build(SHAPE, widths, "silu", 1.0).to(device)
    ours = get_model("uvb").build(SHAPE, widths, "silu", 1.0).to(device).requires_grad_(False).eval()
    ours.load_state_dict(first.state_dict())
    assert isinstance(first, Energy)
    assert isinstance(ours, Energy)
    found: list[Row] = []
    for chains in (1, 10) if quick else (1, 100, 1000):
        state = {name: begin(chains, SHAPE, 0, device=device) for name in ("fp32", "bf16")}
        y = {"first": state["fp32"].y.clone()}

        def first_written(y: dict[str, Tensor] = y) -> None:
            y["first"] = first_written_step(first, y["first"])

        def walk(precision: str, state: dict = state) -> None:
            plan = Plan(device=device, precision=precision)
            with plan.autocast():
                state[precision], _ = langevin_step(ours, state[precision], 0, delta=DELTA, batch=256)

        steps = {"first": first_written, "fp32": lambda: walk("fp32")}
        if has_fast_bf16(device):
            steps["bf16"] = lambda: walk("bf16")
        few = {1: 20, 10: 5, 100: 5, 1000: 3} if device == "cpu" else {1: 50, 10: 50, 100: 50, 1000: 20}
        times = seconds_side_by_side(steps, repeats=3 if quick else few[chains], warm_up=1, device=device)
        for precision in list(steps)[1:]:
            name = f"sampling/uvb/mnist/{chains}-chains/{device}-{precision}"
            reference = "first-written loop, fp32"
            found.append(row(name, times[precision], reference, times["first"], unit="chain steps/s", work=chains))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for found in rows(args.device, args.quick):
        print(json.dumps(found))


if __name__ == "__main__":
    main()
