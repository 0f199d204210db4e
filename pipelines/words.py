"""Texts for people: counts, durations and the names of trainings."""

from uvb.spec import RunSpec
from uvb.words import counted as counted  # so that `pipelines` imports all its words from this file


def clock(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def duration(seconds: float) -> str:
    """Like `clock`, but with tenths below ten seconds: ``4.2 s``."""
    return f"{seconds:.1f} s" if seconds < 9.95 else clock(seconds)


def name_of(spec: RunSpec) -> str:
    """A training's name as people read it: ``uvb σ=1 seed=2``. Seed 0 is left out."""
    return spec.label + (f" seed={spec.seed}" if spec.seed else "")
