"""Keep a study's images in its folder, so that a worker needs no data set of its own."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pipelines.files.store import Store
from uvb.data import ImageSet, cache
from uvb.data.fetch import Parts
from uvb.data.image_set import VERIFIED_BYTES
from uvb.errors import UserError

FETCHES = 4  # parts of a file that are fetched at the same time


def images_path(checksum: str) -> str:
    """The path of the images with this checksum in a study's folder."""
    return f"data/{checksum}.safetensors"


def save_images(store: Store, images: ImageSet) -> None:
    """Put `images` into the study's folder, unless they are already there and whole.

    If this machine's cache has the images, the study's file is a hard link to the cache's file. If no link can be made, it is a
    copy.
    """
    path = images_path(images.checksum)
    load_images.cache_clear()
    with suppress(UserError, OSError):
        if _stored(store, path) == images.checksum:
            return
    with suppress(UserError):
        if ImageSet.load(cache.set_path(images.checksum)).checksum == images.checksum:
            store.put_file(cache.set_path(images.checksum), path)
            return
    with tempfile.TemporaryDirectory(prefix="uvb-images-") as scratch:
        local = Path(scratch) / "images.safetensors"
        images.save(local)
        store.put_file(local, path)


def _stored(store: Store, path: str) -> str:
    """The checksum that the file at `path` gives for its images. If the file is small, check the images against it."""
    if store.local_path:
        return ImageSet.load(store.local_path / path).checksum
    with store.open_at(path) as source, tempfile.TemporaryDirectory(prefix="uvb-images-") as scratch:
        parts = Parts(Path(scratch), source.size(), lambda start, size: bytes(source.read_at(size, start)))
        if source.size() <= VERIFIED_BYTES:
            for part in parts.missing(None):
                parts.fetch(part)
        return ImageSet.load(parts.path).checksum


@lru_cache(maxsize=2)  # a worker process runs many tasks on the same images
def load_images(uri: str, checksum: str, train_images: int | None = None) -> ImageSet:
    """Load the images with this checksum from the study at `uri`, memory-mapped.

    If the study is not on this machine's file system, this machine fetches each part that it needs into its cache, once.

    Args:
        train_images: how many training images will be used; later ones may be missing. None: all will be used.

    Raises:
        UserError: the file is missing or damaged.
    """
    store = Store(uri)
    if store.local_path:
        return ImageSet.load(store.local_path / images_path(checksum))
    if (found := _cached(checksum)) is not None:
        return found
    with cache.workplace(f"fetch-{checksum}") as folder:  # one process of a machine at a time
        if (found := _cached(checksum)) is not None:  # another process fetched it while this one waited
            return found
        with store.open_at(images_path(checksum)) as source:
            parts = Parts(folder, source.size(), lambda start, size: bytes(source.read_at(size, start)))
            with ThreadPoolExecutor(FETCHES) as pool:
                list(pool.map(parts.fetch, parts.missing(train_images)))
            if not parts.complete:
                return ImageSet.load(parts.path)
            # A small file has no checksums of its parts. Only this load checks it, and raises if it is damaged.
            ImageSet.load(parts.path)
            cache.adopt(checksum, parts.path)
        cache.clear(folder)
    return ImageSet.load(cache.set_path(checksum))


def _cached(checksum: str) -> ImageSet | None:
    """The images with this checksum from this machine's cache. None if the cache does not have them, or they are damaged."""
    with suppress(UserError):
        return ImageSet.load(cache.set_path(checksum))
    return None
