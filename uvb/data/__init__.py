"""Data sets: a registry of names, and one's own files by path, to images in memory."""

from uvb.data import cifar10, digits, mixture, mnist  # noqa: F401  each registers its name
from uvb.data.image_set import ImageSet
from uvb.data.registry import dataset_names, load_dataset, register_dataset

__all__ = ["ImageSet", "dataset_names", "load_dataset", "register_dataset"]
