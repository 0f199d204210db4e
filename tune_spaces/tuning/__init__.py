"""Spaces that tune a recipe. They choose by held-out training images, never by the test set."""

from uvb.registry import import_files

import_files(__name__, __path__)
