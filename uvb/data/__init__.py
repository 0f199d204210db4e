"""Load data sets as uint8 images: by name, from a path, or from the Hugging Face hub."""

from uvb.data.image_set import ImageSet
from uvb.data.registry import dataset_names, load_dataset, register_dataset
from uvb.registry import import_files

__all__ = ["ImageSet", "dataset_names", "load_dataset", "register_dataset"]

import_files(__name__, __path__)
