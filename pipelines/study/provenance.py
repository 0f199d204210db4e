"""The origin of a result: code, packages, machine, data."""

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pipelines.files.masking import masked
from uvb.data import ImageSet
from uvb.models.capacity import parameters
from uvb.spec import RunSpec

PACKAGES = ("uvb-study", "torch", "torchvision", "ray", "mlflow", "numpy", "scikit-learn", "pandas", "safetensors")


def provenance(images: ImageSet, specs: Sequence[RunSpec]) -> dict[str, Any]:
    """The origin of a study, for study.json."""
    kinds = {(s.model, s.widths): s for s in specs}
    return {
        "git": git_revision(),
        "versions": versions(*PACKAGES),
        "python": platform.python_version(),
        "machine": platform.node(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "data": {
            "name": images.name, "checksum": images.checksum, "shape": list(images.shape),
            "train": len(images.train), "test": len(images.test), "classes": list(images.classes),
            "read": images.report.to_json() if images.report else None,
        },
        "seeds": sorted({s.seed for s in specs}),
        "parameters": {f"{model} {widths}": parameters(model, s.data.shape, widths) for (model, widths), s in kinds.items()},
        "command": masked(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }  # fmt: skip


def git_revision() -> str | None:
    """The commit of the code, with "+changes" if files differ from it; None outside a git checkout."""
    here = Path(__file__).resolve().parents[1]
    try:
        answers = [
            subprocess.run(["git", "-C", str(here), *what], capture_output=True, text=True, timeout=10, check=True).stdout
            for what in (["rev-parse", "--show-toplevel", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    top, revision = answers[0].splitlines()
    if Path(top).resolve() != here.parent:  # the code is installed inside another repository
        return None
    return revision + ("+changes" if answers[1].strip() else "")


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def versions(*packages: str) -> dict[str, str]:
    """The versions of those `packages` that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
