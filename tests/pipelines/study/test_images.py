"""A study saves its images once, and replaces a damaged file. A machine fetches only the parts that it needs, each once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.files.store import Store
from pipelines.study.images import images_path, load_images, save_images
from tests.support.data_helpers import pixels
from uvb.data import ImageSet, cache, image_file, image_set, load_dataset
from uvb.data.fetch import Parts
from uvb.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVB_CACHE", str(tmp_path / "cache"))
    load_images.cache_clear()


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """A set of five parts: three of training images, two of test images."""
    monkeypatch.setattr(image_file, "BLOCK_BYTES", 16 * 4)
    train, test = (torch.from_numpy(pixels(n, 1, 4, 4, seed=n)) for n in (12, 8))
    return ImageSet("parts", train, test, torch.arange(12), torch.arange(8))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store outside this machine's file system."""
    return Store(f"memory://{tmp_path.name}")


def test_images_come_back_from_a_remote_store(store: Store, images: ImageSet) -> None:
    save_images(store, images)
    back = load_images(store.uri, images.checksum)
    assert torch.equal(back.train, images.train)
    assert torch.equal(back.test, images.test)
    save_images(store, images)  # the second time it writes nothing


def test_load_images_fetches_each_needed_part_once(store: Store, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    save_images(store, images)
    monkeypatch.setattr(image_set, "VERIFIED_BYTES", 0)
    fetched: list[int] = []
    fetch = Parts.fetch

    def counted(self: Parts, number: int) -> None:
        fetched.append(number)
        fetch(self, number)

    monkeypatch.setattr(Parts, "fetch", counted)
    some = load_images(store.uri, images.checksum, 5)
    assert sorted(fetched) == [0, 1, 3, 4]
    assert torch.equal(some.train[:5], images.train[:5])
    assert torch.equal(some.test, images.test)
    load_images.cache_clear()
    every = load_images(store.uri, images.checksum)
    assert sorted(fetched) == [0, 1, 2, 3, 4]
    assert torch.equal(every.train, images.train)
    load_images.cache_clear()
    store.remove(images_path(images.checksum))  # nothing is fetched again
    assert torch.equal(load_images(store.uri, images.checksum).train, images.train)


def test_load_images_refuses_a_damaged_part_and_mends_it(
    store: Store, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(store, images)
    content = bytearray(store.read_bytes(images_path(images.checksum)))
    content[-1] ^= 1
    store.write_bytes(images_path(images.checksum), bytes(content))
    with pytest.raises(UserError, match=r"damaged \(rows 16 to 19\); run the study again"):
        load_images(store.uri, images.checksum)
    save_images(store, images)
    assert torch.equal(load_images(store.uri, images.checksum).test, images.test)


def test_load_images_mends_a_damaged_file_of_the_cache(store: Store, images: ImageSet) -> None:
    save_images(store, images)
    path = cache.set_path(images.checksum)
    assert torch.equal(load_images(store.uri, images.checksum).test, images.test)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    load_images.cache_clear()
    assert torch.equal(load_images(store.uri, images.checksum).test, images.test)
    assert not list((cache.cache_folder() / "work").iterdir())


def test_load_images_fetches_a_file_of_an_earlier_version_whole(store: Store, images: ImageSet, tmp_path: Path) -> None:
    """A file of an earlier version has no checksums of its parts, and its tensors are in another order."""
    from safetensors.torch import save_file

    tensors = {
        "test": images.test,
        "train": images.train,
        "test_labels": images.test_labels,
        "train_labels": images.train_labels,
    }
    save_file(tensors, tmp_path / "old", metadata={"name": "parts", "levels": "255", "checksum": images.checksum})
    store.write_bytes(images_path(images.checksum), (tmp_path / "old").read_bytes())
    assert torch.equal(load_images(store.uri, images.checksum, 3).train, images.train)


def test_save_images_does_not_copy_a_converted_set_on_one_disk(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(20, 4, 4))
    images = load_dataset(str(tmp_path / "a.npz"))
    study = Store(tmp_path / "study")
    save_images(study, images)
    file = tmp_path / "study" / images_path(images.checksum)
    assert file.samefile(cache.set_path(images.checksum))
