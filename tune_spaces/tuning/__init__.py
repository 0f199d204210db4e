"""Spaces that tune a recipe. Held-out training images judge them, never the test set."""

from uvb.registry import import_files

import_files(__name__, __path__)
