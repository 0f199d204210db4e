"""Time the training step on a CPU. Compare it with a straightforward fp32 step, with the CPU's peak and with the whole loop.

python -m benchmarks.step [--quick] [--models uvb deen] [--data mnist cifar10] [--repeats 5] [--threads 0]

In bf16 our step is timed uncompiled and compiled, because long trainings compile (`uvb.plan.resolve_plan`). Each version of
the step runs in its own process, with its own memory settings (`uvb.accelerate.cpu`). The versions take turns, step by step.
`--threads 1` measures CPU time, which other load hardly changes. `benchmarks/gpu/run.py` times more versions on a GPU.
"""

import argparse
import json
import statistics
from functools import partial

import torch
from torch._inductor.utils import fresh_cache

from benchmarks.gpu.variants import BATCH, REFERENCE, first_written, our_step
from benchmarks.measure import Row, Side, Step, figure, in_turn, no_fallback, row, spread
from benchmarks.training import SHAPES, cpu_precision, random_images, spec_on
from pipelines.cluster.cost_model import forward_flops
from uvb.accelerate.cpu import keep_large_buffers
from uvb.machine import usable_cpus
from uvb.models import get_model
from uvb.models.base import Energy
from uvb.plan import Plan, has_cpp_compiler
from uvb.spec import RECIPES, Shape
from uvb.training.loop import fit
from uvb.training.probe import PROBE_IMAGES
from uvb.training.state import TrainState

# Steps of the timed epoch. MNIST's epoch has more. The probe (losses on fixed images after an epoch) gets fewer images in the
# same proportion, so its share of the time is the same as in MNIST's epoch.
LOOP_STEPS = 4
PRODUCTS = (2048, 4096)  # sizes of matrix products. The fastest product gives the CPU's peak
TRIES = 3  # how often each product is timed


def loop_epoch(name: str, shape: Shape, plan: Plan) -> Step:
    """Build an epoch of `uvb.training.loop.fit` on random images, with data, noise, learning rate and probe."""
    count = LOOP_STEPS * BATCH
    images = random_images(shape, count, test=max(1, PROBE_IMAGES * count // 60_000))
    spec = spec_on(images, name, RECIPES["fast"].changed(batch_size=BATCH), widths=get_model(name).widths)
    epochs = fit(spec, plan, TrainState.fresh(spec, plan), images, pulse_seconds=1e9)
    return lambda: next(epochs)


def side(kind: str, name: str, data: str, threads: int) -> dict[str, Step]:
    """Build one version's actions to time. `kind` is "reference" (`first_written`), or our "fp32", "bf16" or "compiled"."""
    torch.set_num_threads(threads)
    shape, known = SHAPES[data], get_model(name)
    model = known.build(shape, known.widths, "silu", 1.0)
    assert isinstance(model, Energy)
    if kind == "reference":
        return {"step": first_written(model, shape, "cpu", BATCH)}
    keep_large_buffers()
    if kind == "compiled":
        return compiled_actions(model, shape, Plan(precision="bf16", compile=True, threads=threads))
    dtype, precision = (torch.bfloat16, "bf16") if kind == "bf16" else (torch.float32, "fp32")
    plan = Plan(precision=precision, threads=threads)
    actions: dict[str, Step] = {"step": our_step(model, shape, plan, BATCH), "epoch": loop_epoch(name, shape, plan)}
    for size in PRODUCTS:
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        actions[f"product {size}"] = partial(torch.matmul, a, b)
    return actions


def compiled_actions(model: Energy, shape: Shape, plan: Plan) -> dict[str, Step]:
    """Two actions: "compile", with an empty cache as on a new machine, and then "step"."""
    made: list[Step] = []

    def compile() -> None:
        with no_fallback(), fresh_cache():
            made.append(our_step(model, shape, plan, BATCH))

    return {"compile": compile, "step": lambda: made[0]()}


def step_rows(name: str, data: str, precision: str, repeats: int, threads: int, compiles: bool) -> list[Row]:
    """Rows that compare our step with the reference and with the peak, and the training loop with the bare step."""
    kinds = ["reference", precision, *(["compiled"] if compiles else [])]
    reference, ours, *compiled = (Side(side, kind, name, data, threads, cpu_time=threads == 1) for kind in kinds)
    compilation = [each.time("compile") for each in compiled]
    products = [partial(ours.time, f"product {size}") for size in PRODUCTS for _ in range(TRIES)]
    steps = [partial(each.time, "step") for each in (reference, ours, *compiled)]
    timed = in_turn([*steps, partial(ours.time, "epoch"), *products], repeats=repeats)
    for each in (reference, ours, *compiled):
        each.close()
    (first, step, *compiled_steps), (epoch, *multiplications) = timed[: len(steps)], timed[len(steps) :]
    sizes = [size for size in PRODUCTS for _ in range(TRIES)]
    rounds = zip(*multiplications, strict=True)
    rates = [max(2 * n**3 / s for n, s in zip(sizes, times, strict=True)) for times in rounds]  # FLOP/s of the fastest product
    flops = 6 * BATCH * forward_flops(name, SHAPES[data], get_model(name).widths)
    loops = [LOOP_STEPS * s / e for s, e in zip(step, epoch, strict=True)]
    one = "-1-thread" if threads == 1 else ""
    full, fast = f"{name}/{data}/cpu-{precision}{one}", f"{name}/{data}/cpu-compile-{precision}{one}"
    rows = [row(f"step/{name}/{data}/cpu-eager-fp32{one}", first)]
    for label, times in zip((full, fast), (step, *compiled_steps), strict=False):
        shares = [flops / s / rate for s, rate in zip(times, rates, strict=True)]
        rows += [
            row(f"step/{label}", times, REFERENCE, first),
            figure(f"peak-share/{label}", statistics.median(shares), "share", "best large product", None, spread(shares)),
        ]
    rows += [row(f"compile/{full}", compilation)] if compilation else []
    return [
        *rows,
        figure(f"loop-share/{full}", statistics.median(loops), "share", "bare step", None, spread(loops)),
        row(f"images/{full}", epoch, unit="images/s", work=LOOP_STEPS * BATCH),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--models", nargs="+", default=["uvb", "deen"])
    parser.add_argument("--data", nargs="+", default=["mnist", "cifar10"], choices=["mnist", "cifar10"])
    parser.add_argument("--precision", default=cpu_precision(), choices=["bf16", "fp32"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each CPU")
    args = parser.parse_args()
    if args.quick:
        args.models, args.data, args.repeats = ["uvb"], ["digits"], 2
    compiles = args.precision == "bf16" and has_cpp_compiler() and not args.quick  # it takes half a minute
    for data in args.data:
        for name in args.models:
            for found in step_rows(name, data, args.precision, args.repeats, args.threads or usable_cpus(), compiles):
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
