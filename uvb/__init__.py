"""Unnormalized Variational Bayes (Saremi, 2020): energies of noisy data, in plain torch.

import uvb
energy = uvb.load("outputs/digits/models/<spec_id>/model")
x_hat = energy(y, eps)
"""

from uvb.models import build_model, model_names, register_model
from uvb.models.base import Energy, Estimator, LatentEnergy
from uvb.models.io import load, load_spec, save_model
from uvb.models.pretrained import pretrained, pretrained_names
from uvb.plan import Plan, resolve_plan
from uvb.spec import DataRef, Recipe, RunSpec, Widths
from uvb.training.loop import fit
from uvb.training.state import TrainState

__all__ = [
    "DataRef", "Energy", "Estimator", "LatentEnergy", "Plan", "Recipe", "RunSpec", "TrainState", "Widths", "build_model",
    "fit", "load", "load_spec", "model_names", "pretrained", "pretrained_names", "register_model", "resolve_plan", "save_model",
]  # fmt: skip
