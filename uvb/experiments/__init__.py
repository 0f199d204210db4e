"""Experiments on trained models, one a file. Importing this package registers them."""

from uvb.experiments import (
    convexity,
    decoder_samples,
    denoise_rows,
    energies,
    internals,
    losses,
    mixture,
    nebula,
    one_z,
    score_error,
    walk_jump,
)
from uvb.experiments.registry import (
    Context,
    Experiment,
    Result,
    experiment_names,
    get_experiment,
    register_experiment,
)

__all__ = [
    "Context", "Experiment", "Result", "convexity", "decoder_samples", "denoise_rows", "energies", "experiment_names",
    "get_experiment", "internals", "losses", "mixture", "nebula", "one_z", "register_experiment", "score_error", "walk_jump",
]  # fmt: skip
