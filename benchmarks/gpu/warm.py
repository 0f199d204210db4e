"""Fill the compiler's cache: compile in parallel all steps that `run.py` will need.

    python3 -m benchmarks.gpu.warm uvb mnist 128      (compiles one step; prints the seconds it took)

The compiler times several versions of a kernel and chooses the fastest. While other processes compile, these times are wrong.
So this script deletes the choices.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import ROOT, Row, figure

# Each process gets few threads, because several compile at once. The number is part of the cache's key, so `run.py` must use
# the same number.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")

SECONDS = 110.0  # for all jobs. A step that is not compiled by then is compiled at its first use
# Model, data and batch of each step, in bf16. Checks and benchmarks use batch 128. Trainings use 64, as the recipe `fast` does.
JOBS = (
    ("uvb", "mnist", 128), ("deen", "mnist", 128), ("uvb", "mnist", 64), ("deen", "mnist", 64), ("vae", "mnist", 64),
    ("uvb", "cifar10", 128), ("deen", "cifar10", 128),
)  # fmt: skip


def warm(model: str, data: str, batch: int, widths: str = "") -> dict[str, object]:
    """Compile one step, alone in a process. Return the device, and the seconds of tracing, compiling and the first call."""
    import torch

    from benchmarks.gpu.variants import our_step
    from benchmarks.measure import no_fallback, wait
    from benchmarks.training import SHAPES
    from uvb.decoding import decoded
    from uvb.models import get_model
    from uvb.plan import Plan
    from uvb.spec import Widths

    device, known = "cuda" if torch.cuda.is_available() else "cpu", get_model(model)
    chosen = decoded(json.loads(widths), Widths, "widths") if widths else known.widths
    net = known.build(SHAPES[data], chosen, "silu", 1.0).to(device)
    with no_fallback():
        wait(device)
        started = time.monotonic()
        our_step(net, SHAPES[data], Plan(device=device, precision="bf16", compile=True), batch, known.objective)()
        wait(device)
    return {"device": device, "seconds": time.monotonic() - started}


def rows(widths: str, jobs: tuple[tuple[str, str, int], ...]) -> Iterator[Row]:
    """Compile all `jobs` at once, and yield the seconds of each. Report a job that fails or takes longer than SECONDS."""
    end = time.monotonic() + SECONDS
    processes = []
    for job in jobs:
        command = [sys.executable, "-m", "benchmarks.gpu.warm", *map(str, job), *([widths] if widths else [])]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT))
    for (model, data, batch), process in zip(jobs, processes, strict=True):
        try:
            out, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            print(f"compiling {model} on {data}: not done after {SECONDS:.0f} s", flush=True)
            continue
        if process.returncode:
            print(f"compiling {model} on {data}: {(err.strip().splitlines() or ['no message'])[-1]}", flush=True)
        else:
            done = json.loads(out.splitlines()[-1])
            yield figure(f"compile/{model}/{data}/{done['device']}-bf16/batch-{batch}", done["seconds"], "s")
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    # These files record which version of a kernel was quickest. The kernels themselves stay.
    for choice in Path(cache_dir()).rglob("*.best_config"):
        choice.unlink(missing_ok=True)


if __name__ == "__main__":
    model, data, batch, *widths = sys.argv[1:]
    print(json.dumps(warm(model, data, int(batch), *widths)))
