"""What the paper compares, and what its remarks and questions ask: one space per file. No space here chooses anything."""

from uvb.registry import import_files

import_files(__name__, __path__)
