"""Models of the paper and beyond, one a file. Importing this package registers them."""

from uvb.models import autoencoders, deen, uvb, vae
from uvb.models.registry import Model, build_model, get_model, model_names, register_model

__all__ = [
    "Model", "autoencoders", "build_model", "deen", "get_model", "model_names", "register_model", "uvb", "vae",
]  # fmt: skip
