"""Models of the paper and beyond. Importing this package registers them. Objectives are in `uvb.training`."""

from uvb.models.registry import Model, build_model, code_changed, get_model, model_names, register_model
from uvb.registry import import_files

__all__ = ["Model", "build_model", "code_changed", "get_model", "model_names", "register_model"]

import_files(__name__, __path__)
