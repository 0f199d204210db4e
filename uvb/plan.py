"""Plan: how a training runs. It is made once, stored beside the model, and used again when the training resumes."""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from uvb.accelerate.products import products
from uvb.compat import cpu_has_bf16
from uvb.errors import UserError
from uvb.machine import usable_cpus
from uvb.words import counted

Precision = Literal["fp32", "bf16", "fp64"]
COMPILE_FROM = 900.0  # seconds of training; compiling for a CPU takes up to a minute and saves 3 to 30 % of the time


@dataclass(frozen=True)
class Plan:
    """Workers, device, precision, compilation, and CPU threads of each worker. Every field is concrete; none is "auto".

    With `graph` the forward and the backward pass run as one CUDA graph (`uvb.accelerate.cuda_graph`). This needs a single
    worker. With `products` convolutions of few pixels are computed as matrix products (`uvb.accelerate.products`).
    """

    workers: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    compile: bool = False
    threads: int = 1
    graph: bool = False
    products: bool = False

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(blob: Mapping[str, Any]) -> "Plan":
        """The inverse of `to_json`. Raises `UserError` if a field is unknown, as in a plan of another version."""
        try:
            return Plan(**blob)
        except TypeError as error:
            raise UserError(f"this version cannot read the stored plan ({error}); use --replan to make a new one") from error

    def __str__(self) -> str:
        threads = f", {counted(self.threads, 'thread')} each" if self.device == "cpu" else ""
        how = ("compiled" if self.compile else "eager") + (", one CUDA graph" if self.graph else "")
        return f"{counted(self.workers, 'worker')} on {self.device}{threads}, {self.precision}, {how}"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and images: float64 for fp64, and otherwise float32. bf16 is autocast over float32 weights."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    def require_possible_here(self) -> None:
        """Raise `UserError` if this machine cannot run the plan. A plan is never changed silently."""
        if self.device not in ("cpu", "cuda"):
            raise UserError(f"device {self.device}: only cpu and cuda are supported; choose one of them (Apple's GPUs: cpu)")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                "device cuda: this machine shows no CUDA device; choose another device, "
                "or add --replan if the study began elsewhere"
            )
        if self.graph and (self.device != "cuda" or self.workers > 1):
            raise UserError(f"the plan has {self.workers} workers on {self.device}; a CUDA graph needs one worker on cuda")
        if self.precision == "bf16" and not has_fast_bf16(self.device):
            raise UserError(
                f"precision bf16: this machine's {self.device} has no bf16 arithmetic; choose --precision fp32, "
                "or add --replan if the study began elsewhere"
            )

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Inside this block, compute as the plan says: in bf16 by autocast, and small convolutions as matrix products."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16"), products(self.products):
            yield


def has_fast_bf16(device: str) -> bool:
    """Whether `device` multiplies bf16 in hardware: AVX512-BF16 or AMX on a CPU, compute capability 8 or more on CUDA."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    return cpu_has_bf16()


def resolve_plan(
    *,
    workers: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto",
    compile: Literal["auto", "on", "off"] = "auto",
    threads: int = 0,
    seconds: float = 0.0,
) -> Plan:
    """Make a concrete plan for this machine. "auto" and 0 mean "what is fastest here".

    - bf16 is used if the hardware has it.
    - CUDA uses `torch.compile`. With one worker it also runs each step as one CUDA graph.
    - A CPU uses `torch.compile` only for long trainings in bf16.
    - A CPU computes small convolutions as matrix products (`benchmarks/cpu/small_images.py`).
    - The workers share the machine's cores evenly.

    Args:
        seconds: about how long a training will take. 0: not known, which is treated as short.

    Raises:
        UserError: this machine cannot run the plan.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    faster = device == "cuda" or (seconds >= COMPILE_FROM and precision == "bf16" and has_cpp_compiler())
    compiled = faster if compile == "auto" else compile == "on"
    plan = Plan(
        workers=workers,
        device=device,
        precision=precision,
        compile=compiled,
        threads=threads or max(1, usable_cpus() // workers),
        graph=compiled and device == "cuda" and workers == 1,
        products=device == "cpu",
    )
    plan.require_possible_here()
    return plan


def has_cpp_compiler() -> bool:
    """Whether this machine has the C++ compiler that torch.compile needs on a CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None
