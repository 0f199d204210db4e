"""Spaces for the paper's tables, remarks and open questions, one in each file. They compare models and choose nothing."""

from uvb.registry import import_files

import_files(__name__, __path__)
