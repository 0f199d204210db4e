"""What the paper compares, and what its remarks and questions ask: one space a file. Nothing is chosen here."""

from uvb.registry import import_files

import_files(__name__, __path__)
