"""Variants of the training step, timed side by side. One variant is in JAX.

A step is forward pass, inner gradient, backward pass, clipping, Adam and the average of the weights, on a batch that is ready.
"""

import dataclasses
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import torch

from benchmarks.measure import ROOT, Row, Step, figure, no_fallback, row, seconds_side_by_side, setting, wait
from benchmarks.training import SHAPES
from pipelines.cluster.cost_model import forward_flops
from uvb.models import get_model, nets
from uvb.models.base import Energy, Estimator
from uvb.noise import normal
from uvb.plan import Plan, Precision
from uvb.spec import RECIPES, Shape, Widths
from uvb.training.objectives import build_objective
from uvb.training.step import gradients_of, prepare

BATCH = 128
REFERENCE = "eager fp32, as first written"
# Passes over the weights that no fusion avoids, with four bytes for each weight. Adam reads p, g, m, v and writes p, m, v. The
# average is read and written. The backward pass writes g. Activations are left out, so the roofline's time is a lower bound.
PASSES = 10

FAST = ("graph-compile-bf16", "graph-eager-bf16", "compile-bf16", "eager-bf16")  # what a plan can choose
OTHERS = (  # for comparison
    "graph-compile-bf16-cudnn-benchmark",  # cuDNN tries all its algorithms
    "graph-dynamo-bf16",  # plain torch.compile, with torch's own second derivatives
    "graph-eager-bf16-torch-derivatives",  # uncompiled, with torch's own second derivatives
    "jax-fp32",
)
JAX_SECONDS = 90  # for one precision, compilation included
VARIANT_SECONDS = 40  # for a compilation and its timing


def batch_for(model: Estimator, shape: Shape, device: str, batch: int) -> tuple[torch.Tensor, ...]:
    """x and noise (B, C, H, W), ε (B, noise_dim), weight (B,)."""
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    noise = normal((batch, *shape), 0, "noise", device=device)
    eps = normal((batch, model.noise_dim), 0, "latent", device=device)
    return x, noise, eps, torch.full((batch,), 1 / batch, device=device)


def first_written(model: Energy, shape: Shape, device: str, batch: int) -> Step:
    """The straightforward step: autograd.grad, plain Adam, fp32 with torch's defaults, no clipping, no average of weights."""
    x, noise, eps, _ = batch_for(model, shape, device, batch)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> torch.Tensor:
        y = (x + model.sigma * noise).requires_grad_()
        with setting(nets, "convolve", torch.conv2d):  # torch's own second derivatives, not our hand-written ones
            (gradient,) = torch.autograd.grad(model.energy(y, eps).sum(), y, create_graph=True)
        loss = (x - y + model.sigma**2 * gradient).square().sum() / len(x)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return step


def our_step(model: Estimator, shape: Shape, plan: Plan, batch: int, objective: str = "denoise", dynamo: bool = False) -> Step:
    """The step of `uvb.training.loop.fit`. With `dynamo` plain torch.compile replaces our own compilation."""
    arguments = batch_for(model, shape, plan.device, batch)
    loss_of = prepare(build_objective(objective, model), plan, (batch, *shape))
    if dynamo:
        loss_of = torch.compile(loss_of, fullgraph=True, dynamic=False)
    gradients = gradients_of(loss_of, plan, RECIPES["fast"].clip)
    trained = [p for p in model.parameters() if p.requires_grad]
    averaged = [p.detach().clone() for p in trained]
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        gradients(*arguments)
        adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, trained, 1e-3)
        adam.zero_grad(set_to_none=True)

    return step


def variant(name: str, model: Estimator, shape: Shape, device: str, batch: int) -> Step:
    """Our step in the variant `name`, compiled, captured and warmed up."""
    torch._dynamo.reset()
    precision: Precision = "fp32" if "fp32" in name else "bf16"
    plan = Plan(device=device, precision=precision, compile="compile" in name, graph=name.startswith("graph-"))
    ours = "torch-derivatives" not in name and "dynamo" not in name
    convolve = setting(nets, "convolve", nets.convolve if ours else torch.conv2d)
    with no_fallback(), setting(torch.backends.cudnn, "benchmark", name.endswith("benchmark")), convolve:
        step = our_step(model, shape, plan, batch, dynamo="dynamo" in name)
        for _ in range(5):
            step()
        wait(device)
    return step


@cache
def ceilings(device: str, size: int = 8192, copy_bytes: int = 2**32) -> dict[str, float]:
    """Measure FLOP/s of large products in bf16, fp32 and, on CUDA, TF32, and bytes/s of a large copy."""
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


@dataclass
class Steps:
    """The steps of one network on one data set. Each variant is timed beside the step `first_written`.

    Args:
        peak: the result of `ceilings`.
    """

    model: str
    data: str
    device: str
    peak: dict[str, float]
    widths: Widths | None = None
    batch: int = BATCH

    @property
    def at(self) -> str:
        return f"{self.model}/{self.data}/{self.device}"

    @cached_property
    def timing(self) -> dict[str, int]:
        return {"repeats": 20, "inner": 5} if self.device == "cuda" else {"repeats": 3, "inner": 1}

    def build(self) -> Energy:
        known = get_model(self.model)
        built = known.build(SHAPES[self.data], self.widths or known.widths, "silu", 1.0).to(self.device)
        assert isinstance(built, Energy)
        return built

    @cached_property
    def eager(self) -> Step:
        return first_written(self.build(), SHAPES[self.data], self.device, self.batch)

    def reference(self) -> Iterator[Row]:
        """The row of `first_written`, the straightforward step."""
        yield row(f"step/{self.at}-eager-fp32", seconds_side_by_side({"": self.eager}, **self.timing, device=self.device)[""])

    def rows(self, name: str) -> Iterator[Row]:
        """Rows of a variant: step time and speed-up, shares of peak and roofline, and seconds until the variant was ready."""
        started = time.monotonic()
        if name.startswith("jax-"):
            times, begun = self.jax_apart(name.removeprefix("jax-"))
            against = seconds_side_by_side({"": self.eager}, **self.timing, device=self.device)[""]
        else:
            step = variant(name, self.build(), SHAPES[self.data], self.device, self.batch)
            begun = time.monotonic() - started
            both = seconds_side_by_side({"eager": self.eager, "fast": step}, **self.timing, device=self.device)
            times, against = both["fast"], both["eager"]
        flops = 6 * self.batch * forward_flops(self.model, SHAPES[self.data], self.widths or get_model(self.model).widths)
        # JAX computes fp32 convolutions, and perhaps matrix products, in TF32. So compare JAX with the TF32 peak.
        fp32 = "tf32" if "tf32" in self.peak else "fp32"
        precision = "bf16" if "bf16" in name else fp32
        weights = sum(p.numel() for p in self.build().parameters())
        median = statistics.median(times)
        roofline = flops / self.peak[precision] + 4 * PASSES * weights / self.peak["bytes"]
        yield row(f"step/{self.at}-{name}", times, REFERENCE, against)
        yield figure(f"peak-share/{self.at}-{name}", flops / median / self.peak[precision], "share", "large matrix product")
        yield figure(f"roofline-share/{self.at}-{name}", roofline / median, "share", "arithmetic + bytes of weights, Adam, EMA")
        ready = "compilation (from the cache where warm.py has run), capture and warm-up"
        yield figure(f"ready/{self.at}-{name}", begun, "s", ready)

    def jax_apart(self, precision: str) -> tuple[list[float], float]:
        """Time JAX's step in its own process. Return the seconds of each step, and those of the first call."""
        if importlib.util.find_spec("jax") is None:
            raise RuntimeError("JAX is not installed")
        widths = dataclasses.asdict(self.widths or get_model(self.model).widths)
        sizes = {"shape": SHAPES[self.data], "widths": widths, "batch": self.batch, "device": self.device, **self.timing}
        command = [sys.executable, "-m", "benchmarks.jax_step", self.model, precision, json.dumps(sizes)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=JAX_SECONDS, cwd=ROOT)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
        times, begun = json.loads(done.stdout.splitlines()[-1])
        return times, begun
