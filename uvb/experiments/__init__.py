"""Experiments: what is computed of a trained model, one file each. Importing this package registers them."""

from uvb.experiments.registry import (
    Context,
    Experiment,
    Result,
    experiment_names,
    get_experiment,
    register_experiment,
)
from uvb.registry import import_files

__all__ = ["Context", "Experiment", "Result", "experiment_names", "get_experiment", "register_experiment"]

import_files(__name__, __path__)
