"""Where a step's time goes on a GPU: its parts, its kernels, and other ways of writing the first layer.

    python3 -m benchmarks.gpu.profile > profile.txt      (about a minute; needs what gpu_run.py needs, and no data)

To read, not to keep: nothing here becomes a row of a table.
"""

import collections
import sys
import time
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.variants import BATCH, SHAPES, batch_for
from benchmarks.measure import no_fallback
from uvb.accelerate.gradients import clip
from uvb.models import get_model
from uvb.plan import Plan
from uvb.spec import RECIPES
from uvb.training.loop import gradients_of, prepare
from uvb.training.objectives import build_objective

KERNELS = 45  # lines of a table
CALLS = 20  # in one graph, so that launches do not count


def milliseconds(call: Callable[[], object], repeats: int = 30) -> str:
    """Of a call, and of the host's part in it."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    host = time.perf_counter() - started
    torch.cuda.synchronize()
    return f"{1e3 * (time.perf_counter() - started) / repeats:.3f} ms, of which the host {1e3 * host / repeats:.3f}"


def kernel_microseconds(call: Callable[[], object]) -> float:
    """Of a call replayed from a graph of many: the best of five."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    times = []
    for _ in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return 1e3 * min(times[1:]) / CALLS


def kernels(call: Callable[[], object]) -> None:
    """Print the kernels of a call by what they take together."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
    taken, count = collections.Counter[str](), collections.Counter[str]()
    for event in profiled.events():
        if event.device_type == DeviceType.CUDA:
            taken[event.name] += event.time_range.elapsed_us()
            count[event.name] += 1
    print(f"{sum(count.values()) / 3:.0f} kernels, {sum(taken.values()) / 3:.0f} µs")
    for name, microseconds in taken.most_common(KERNELS):
        print(f"  {microseconds / 3:8.1f} µs x {count[name] / 3:g}  {name[:110]}")


def step_parts(name: str) -> None:
    """Gradients, clipping, Adam and average of the paper's network on MNIST's shape, apart and together."""
    known, shape = get_model(name), SHAPES["mnist"]
    model = known.build(shape, known.widths, "silu", 1.0).cuda()
    plan, batch = Plan(device="cuda", precision="bf16", compile=True, graph=True), batch_for(model, shape, "cuda", BATCH)
    with no_fallback():
        gradients = gradients_of(prepare(build_objective("denoise", model), plan, (BATCH, *shape)), plan)
        gradients(*batch)
    trained = [p for p in model.parameters() if p.requires_grad]
    averaged = [p.detach().clone() for p in trained]
    adam = torch.optim.Adam(trained, lr=1e-4, fused=True)

    def average() -> None:
        with torch.no_grad():
            torch._foreach_lerp_(averaged, trained, 1e-3)

    def step() -> None:
        gradients(*batch)
        clip(trained, RECIPES["fast"].clip)
        adam.step()
        average()

    parts = {"gradients": lambda: gradients(*batch), "clip": lambda: clip(trained, 100.0), "Adam": adam.step}
    for part, call in {**parts, "average": average, "step": step}.items():
        print(f"{name}, {part}: {milliseconds(call)}", flush=True)
    kernels(step)


def convolutions() -> None:
    """µs of the forward pass and of both gradients: the first layer by cuDNN and as a product, others alone and in pairs."""
    aten, options = torch.ops.aten, ([1, 1], [0, 0], [1, 1], False, [0, 0])

    def passes(x: torch.Tensor, w: torch.Tensor, g: torch.Tensor, groups: int = 1) -> list[float]:
        calls = [lambda: aten.convolution(x, w, None, *options, groups)]
        for wanted in ([True, False, False], [False, True, False]):
            calls.append(lambda wanted=wanted: aten.convolution_backward(g, x, w, None, *options, groups, wanted))
        return [round(kernel_microseconds(call), 1) for call in calls]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)

    for d in (32, 128):
        x, w, g = draw(BATCH, 1, 28, 28), draw(d, 1, 3, 3), draw(BATCH, d, 26, 26)
        patches = x.unfold(2, 3, 1).unfold(3, 3, 1).reshape(-1, 9).contiguous()
        rows, filters = g.movedim(1, -1).reshape(-1, d), w.reshape(d, 9)
        calls = (lambda p=patches, f=filters: p @ f.T, lambda r=rows, f=filters: r @ f, lambda r=rows, p=patches: r.T @ p)
        product = [round(kernel_microseconds(call), 1) for call in calls]
        print(f"1 -> {d}: {passes(x, w, g)}; as products {product} µs", flush=True)
    for c, d, side in ((32, 64, 26), (64, 128, 24), (128, 256, 26), (256, 512, 24)):
        for groups in (1, 2) if d <= 128 else (1,):
            x, w = draw(BATCH, c * groups, side, side), draw(d * groups, c, 3, 3)
            g = draw(BATCH, d * groups, side - 2, side - 2)
            print(f"{c} -> {d}, {groups} in a group: {passes(x, w, g, groups)} µs", flush=True)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: there are no kernels to profile")
    for name in ("uvb", "deen"):
        step_parts(name)
    convolutions()
