"""The training step on a GPU, written several ways, timed side by side; JAX's too. `gpu/run.py` drives it.

A step is forward, inner gradient, backward, clipping, Adam and EMA of the paper's network, on data that is already there.
"""

import dataclasses
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.one_update import OneUpdate
from benchmarks.measure import ROOT, Row, figure, no_fallback, require_alive, row, seconds_side_by_side, setting, wait
from uvb.models import get_model, nets
from uvb.models.base import Energy, Estimator
from uvb.noise import normal
from uvb.plan import Plan
from uvb.spec import RECIPES, Shape, Widths
from uvb.training.loop import gradients_of, prepare
from uvb.training.objectives import build_objective

SHAPES: dict[str, Shape] = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
BATCH = 128
REFERENCE = "eager fp32, as first written"
# Every pass over the weights that no fusion can avoid: Adam reads p, g, m, v and writes p, m, v; the EMA reads and writes
# its average; the backward pass writes g. Four bytes each. Activations are not counted, so the floor is a low one.
PASSES = 10

FAST = ("graph-compile-bf16", "graph-eager-bf16", "compile-bf16", "eager-bf16")  # what a plan can say, the likeliest first
# To compare. "benchmark": cuDNN tries its algorithms. "dynamo": torch.compile of the objective as it is, with torch's own
# second derivatives, beside ours. "torch-derivatives": those, uncompiled.
OTHERS = ("graph-compile-bf16-cudnn-benchmark", "graph-dynamo-bf16", "graph-eager-bf16-torch-derivatives", "jax-fp32")
ONE_UPDATE = "graph-compile-bf16-one-update"  # clipping, Adam and EMA compiled into one (`one_update.py`)
JAX_SECONDS = 90  # for one precision, compilation included
VARIANT_SECONDS = 40  # with fewer left none is begun: what a compilation and its timing may take


def batch_for(model: Estimator, shape: Shape, device: str, batch: int) -> tuple[torch.Tensor, ...]:
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    noise = normal((batch, *shape), 0, "noise", device=device)
    eps = normal((batch, model.noise_dim), 0, "latent", device=device)
    return x, noise, eps, torch.full((batch,), 1 / batch, device=device)


def first_written(model: Energy, shape: Shape, device: str, batch: int) -> Callable[[], Any]:
    """autograd.grad inside, Adam as it comes, fp32 with torch's defaults (TF32 in convolutions); no clipping, no EMA."""
    x, noise, eps, _ = batch_for(model, shape, device, batch)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> torch.Tensor:
        y = (x + model.sigma * noise).requires_grad_()
        with setting(nets, "convolve", torch.conv2d):  # ours has its derivatives written out
            (gradient,) = torch.autograd.grad(model.energy(y, eps).sum(), y, create_graph=True)
        loss = (x - y + model.sigma**2 * gradient).square().sum() / len(x)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return step


def variant(name: str, model: Estimator, shape: Shape, device: str, batch: int) -> Callable[[], Any]:
    """The step of the training loop, put together as the variant says: compiled, captured and warmed up."""
    torch._dynamo.reset()
    plan = Plan(device=device, precision="bf16", compile="-compile" in f"-{name}", graph=name.startswith("graph-"))
    arguments = batch_for(model, shape, device, batch)
    objective = build_objective("denoise", model)
    ours = "torch-derivatives" not in name and "dynamo" not in name
    convolve = setting(nets, "convolve", nets.convolve if ours else torch.conv2d)
    with no_fallback(), setting(torch.backends.cudnn, "benchmark", name.endswith("benchmark")), convolve:
        loss_of = prepare(objective, plan, (batch, *shape))
        if "dynamo" in name:
            loss_of = torch.compile(loss_of, fullgraph=True, dynamic=False)  # type: ignore[assignment]  # its stub says Callable
        longest, together = RECIPES["fast"].clip, name.endswith("one-update")
        gradients = gradients_of(loss_of, plan, math.inf if together else longest)
        trained = [p for p in model.parameters() if p.requires_grad]
        averaged = [p.detach().clone() for p in trained]
        adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        update = OneUpdate(trained, averaged, 1e-4, longest)

        def step() -> torch.Tensor:
            loss = gradients(*arguments)
            if together:
                update()
            else:
                adam.step()
                with torch.no_grad():
                    torch._foreach_lerp_(averaged, trained, 1e-3)
            adam.zero_grad(set_to_none=True)
            return loss

        for _ in range(5):
            step()
        wait(plan.device)
    return step


def forward_flops(model: str, shape: Shape, widths: Widths) -> int:
    """Of one energy of one image, counted by torch."""
    built = get_model(model).build(shape, widths, "silu", 1.0)
    assert isinstance(built, Energy)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built.energy(torch.zeros(1, *shape), torch.zeros(1, built.noise_dim))
    return int(counter.get_total_flops())


@cache
def ceilings(device: str, size: int = 8192, copy_bytes: int = 2**32) -> dict[str, float]:
    """Measured here and now: FLOP/s of a large bf16, fp32 and (on CUDA) TF32 product on random data, bytes/s of a copy."""
    if device == "cpu":
        size, copy_bytes = 512, 2**24
    found: dict[str, float] = {}
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32} | ({"tf32": torch.float32} if device == "cuda" else {})
    for name, dtype in kinds.items():
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        with setting(torch.backends.cuda.matmul, "allow_tf32", name == "tf32"):
            times = seconds_side_by_side({"mm": lambda a=a, b=b: a @ b}, repeats=10, inner=3, device=device)["mm"]
        found[name] = 2 * size**3 / statistics.median(times)
    source = torch.randn(copy_bytes // 4, device=device)
    target = torch.empty_like(source)
    times = seconds_side_by_side({"copy": lambda: target.copy_(source)}, repeats=10, device=device)["copy"]
    found["bytes"] = 2 * copy_bytes / statistics.median(times)
    return found


def step_rows(
    model: str,
    data: str,
    peak: dict[str, float],
    device: str,
    names: Sequence[str],
    *,
    have: Collection[str] = (),
    left: Callable[[], float] = lambda: math.inf,
    failed: Callable[[str, str], None] = lambda name, why: print(f"{name}: {why}", flush=True),
    widths: Widths | None = None,
    batch: int = BATCH,
) -> Iterator[Row]:
    """Rows of each variant in `names` and not in `have`: times faster than the eager fp32 step, shares of peak and roofline.

    Every way of writing it is tried for itself: one that fails is named to `failed` and costs the others nothing. None is
    begun that might not end within the seconds `left`.
    """
    known = get_model(model)
    widths, shape, at = widths or known.widths, SHAPES[data], f"{model}/{data}/{device}"
    todo = [name for name in names if f"step/{at}-{name}" not in have]
    if not todo or left() < VARIANT_SECONDS:
        return

    def build() -> Energy:
        built = known.build(shape, widths, "silu", 1.0).to(device)
        assert isinstance(built, Energy)
        return built

    few = {"repeats": 20, "inner": 5} if device == "cuda" else {"repeats": 3, "inner": 1}
    eager = first_written(build(), shape, device, batch)
    against = seconds_side_by_side({"eager": eager}, **few, device=device)["eager"]
    if f"step/{at}-eager-fp32" not in have:
        yield row(f"step/{at}-eager-fp32", against)
    flops = 6 * batch * forward_flops(model, shape, widths)
    weights = sum(p.numel() for p in build().parameters())
    for name in todo:
        if left() < (JAX_SECONDS if name.startswith("jax-") else VARIANT_SECONDS):
            return
        started = time.monotonic()
        try:
            if name.startswith("jax-"):
                times, begun = jax_apart(model, shape, widths, name.removeprefix("jax-"), batch, few, device)
                reference = against
            else:
                step = variant(name, build(), shape, device, batch)
                begun = time.monotonic() - started
                both = seconds_side_by_side({"eager": eager, "fast": step}, **few, device=device)
                times, reference = both["fast"], both["eager"]
                del step
        except Exception as error:
            failed(f"step/{at}-{name}", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            require_alive(device)
            continue
        # JAX's fp32 has its convolutions in TF32, torch's default too, and may have its products so.
        median, precision = statistics.median(times), "bf16" if "bf16" in name else "tf32" if "tf32" in peak else "fp32"
        roofline = flops / peak[precision] + 4 * PASSES * weights / peak["bytes"]
        yield row(f"step/{at}-{name}", times, REFERENCE, reference)
        yield figure(f"peak-share/{at}-{name}", flops / median / peak[precision], "share", "large matrix product")
        yield figure(f"roofline-share/{at}-{name}", roofline / median, "share", "arithmetic + bytes of weights, Adam, EMA")
        yield figure(f"ready/{at}-{name}", begun, "s", "compilation (gpu_warm.py's, where it has been), capture and warm-up")


def jax_apart(model: str, shape: Shape, widths: Widths, precision: str, batch: int, few: dict[str, int], device: str) -> Any:
    """Seconds a step and of the first call, in a process that has the GPU's memory to itself as far as it goes."""
    if importlib.util.find_spec("jax") is None:
        raise RuntimeError("JAX is not installed")
    sizes = {"shape": shape, "widths": dataclasses.asdict(widths), "batch": batch, "device": device, **few}
    command = [sys.executable, "-m", "benchmarks.jax_step", model, precision, json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=JAX_SECONDS, cwd=ROOT)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.splitlines()[-1])
