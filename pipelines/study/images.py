"""The study's images in its own folder, so that a worker needs no data set of its own."""

import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pipelines.files.store import Store
from uvb.data import ImageSet
from uvb.errors import UserError


def images_path(checksum: str) -> str:
    return f"data/{checksum}.safetensors"


def save_images(store: Store, images: ImageSet) -> None:
    """Put `images` into the study's folder, unless they are there and whole."""
    path = images_path(images.checksum)
    with suppress(UserError, FileNotFoundError):
        if load_images(store.uri, images.checksum).checksum == images.checksum:
            return
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "images.safetensors"
        images.save(local)
        store.write_bytes(path, local.read_bytes())


@lru_cache(maxsize=2)  # a worker process runs many tasks on the same images
def load_images(uri: str, checksum: str) -> ImageSet:
    """The images with that checksum, from the study at `uri`.

    Raises:
        UserError: the file is missing or damaged.
    """
    store = Store(uri)
    if store.local_path:
        return ImageSet.load(store.local_path / images_path(checksum))
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "images.safetensors"
        local.write_bytes(store.read_bytes(images_path(checksum)))
        return ImageSet.load(local)
