"""Samplers of Y: Markov chains with density exp(-f). Importing this package registers them."""

from uvb.registry import import_files
from uvb.sampling.registry import Sampler, get_sampler, register_sampler, sampler_names

__all__ = ["Sampler", "get_sampler", "register_sampler", "sampler_names"]

import_files(__name__, __path__)
