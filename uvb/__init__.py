"""Unnormalized Variational Bayes (Saremi, 2020): energies of noisy data, in plain torch.

import uvb
energy = uvb.load("outputs/digits/models/<spec_id>/model")
x_hat = energy(y, eps)

Every name is imported when it is first used, so that `import uvb` alone does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvb.models import build_model, model_names, register_model
    from uvb.models.base import Energy, Estimator, LatentEnergy
    from uvb.models.io import load, load_spec, save_model
    from uvb.models.pretrained import pretrained, pretrained_names
    from uvb.plan import Plan, resolve_plan
    from uvb.spec import DataRef, Recipe, RunSpec, Widths
    from uvb.training.loop import fit
    from uvb.training.state import TrainState

_HOMES = {
    "uvb.models": ("build_model", "model_names", "register_model"),
    "uvb.models.base": ("Energy", "Estimator", "LatentEnergy"),
    "uvb.models.io": ("load", "load_spec", "save_model"),
    "uvb.models.pretrained": ("pretrained", "pretrained_names"),
    "uvb.plan": ("Plan", "resolve_plan"),
    "uvb.spec": ("DataRef", "Recipe", "RunSpec", "Widths"),
    "uvb.training.loop": ("fit",),
    "uvb.training.state": ("TrainState",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DataRef", "Energy", "Estimator", "LatentEnergy", "Plan", "Recipe", "RunSpec", "TrainState", "Widths", "build_model",
    "fit", "load", "load_spec", "model_names", "pretrained", "pretrained_names", "register_model", "resolve_plan", "save_model",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'uvb' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
