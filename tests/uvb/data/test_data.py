"""Data sets by name: known answers, exact round trips, and one clear line for each kind of bad input."""

import functools
import hashlib
import http.server
import io
import pickle
import re
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.data_helpers import SHARED, fails, needs_mnist, pixels, seed_zero_order
from tests.support.ports import free_ports
from uvb.data import ImageSet, dataset_names, load_dataset, register_dataset, registry
from uvb.data import _download as download_module
from uvb.data._torchvision import torchvision_datasets
from uvb.errors import UserError


def small_set(**changes: Any) -> ImageSet:
    images = torch.from_numpy(pixels(6, 1, 3, 4))
    return replace(ImageSet("small", images[:4], images[4:], torch.arange(4), torch.arange(2)), **changes)


def mean_predictor_loss(images: ImageSet) -> float:
    """Test loss of always predicting the training mean: sum over pixels, mean over images."""
    mean = images.to_unit(images.train).mean(0)
    return float((images.to_unit(images.test) - mean).square().flatten(1).sum(1).mean())


# ImageSet


def test_checksum_depends_only_on_contents_shapes_and_levels() -> None:
    base = small_set()
    assert re.fullmatch("[0-9a-f]{16}", base.checksum)
    assert small_set(name="other").checksum == base.checksum
    pixel = base.test.clone()
    pixel[0, 0, 0, 0] ^= 1
    changed = [
        small_set(test=pixel),
        small_set(test_labels=torch.tensor([0, 2])),
        small_set(train_labels=None),
        small_set(train=base.train.reshape(4, 1, 4, 3), test=base.test.reshape(2, 1, 4, 3)),  # the same bytes
    ]
    assert len({images.checksum for images in [base, *changed]}) == 1 + len(changed)
    dark = small_set(train=base.train // 2, test=base.test // 2)
    assert replace(dark, levels=128).checksum != dark.checksum


def test_checksum_does_not_depend_on_memory_layout() -> None:
    strided = small_set().train.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert not strided.is_contiguous()
    assert small_set(train=strided).checksum == small_set().checksum


@pytest.mark.parametrize("labels", [True, False])
def test_save_and_load_give_back_every_field(tmp_path: Path, labels: bool) -> None:
    images = small_set() if labels else small_set(train_labels=None, test_labels=None)
    images.save(tmp_path / "new" / "images.safetensors")
    back = ImageSet.load(tmp_path / "new" / "images.safetensors")
    assert (back.name, back.levels, back.checksum) == ("small", 255, images.checksum)
    for key in ("train", "test", "train_labels", "test_labels"):
        ours, theirs = getattr(images, key), getattr(back, key)
        assert theirs is None if ours is None else torch.equal(ours, theirs)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["images.safetensors"]  # no temporary file stays


def test_load_refuses_a_changed_truncated_or_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "images.safetensors"
    small_set().save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        ImageSet.load(path)
    path.write_bytes(content[:-5])
    with pytest.raises(UserError, match="damaged"):
        ImageSet.load(path)
    with pytest.raises(UserError, match="no such file"):
        ImageSet.load(tmp_path / "absent")


def test_to_unit_is_value_over_levels() -> None:
    images = small_set(train=torch.tensor([0, 4, 16], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 3, 4),
                       train_labels=None, test=small_set().test // 16, levels=16)  # fmt: skip
    unit = images.to_unit(images.train, torch.float64)
    assert unit.dtype == torch.float64
    assert unit[:, 0, 0, 0].tolist() == [0.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"train": torch.zeros(0, 1, 3, 4, dtype=torch.uint8), "train_labels": None}, "train: it is empty"),
        ({"test": torch.zeros(2, 3, 4, dtype=torch.uint8)}, r"uint8 \(N, C, H, W\)"),
        ({"train": torch.zeros(4, 1, 3, 4)}, "float32"),
        ({"test": torch.zeros(2, 3, 3, 4, dtype=torch.uint8)}, "one size"),
        ({"train_labels": torch.arange(3)}, "labels"),
        ({"levels": 16}, "above levels = 16"),
        ({"levels": 256}, "1 to 255"),
    ],
)
def test_image_set_refuses_tensors_that_do_not_fit(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        small_set(**changes)


# Named data sets


def test_digits_have_the_documented_split_of_all_1797_images() -> None:
    from sklearn.datasets import load_digits

    images = load_dataset("digits")
    assert (images.shape, len(images.train), len(images.test), images.levels) == ((1, 8, 8), 1500, 297, 16)
    order = seed_zero_order(1797)
    unit = images.to_unit(torch.cat([images.train, images.test]), torch.float64)[:, 0]
    assert np.array_equal(unit.numpy() * 16, load_digits().images[order])
    assert images.test_labels is not None
    assert np.array_equal(images.test_labels.numpy(), load_digits().target[order[1500:]])


def test_digits_keep_the_known_loss_of_the_mean_and_the_checksum() -> None:
    """The loss 4.74 was measured before this code was written. The checksum must not change, because stored models name it."""
    images = load_dataset("digits")
    assert mean_predictor_loss(images) == pytest.approx(4.74, abs=0.02)
    assert images.checksum == "a928b79a01505c9d"


@pytest.fixture
def mnist_dir(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (SHARED / "MNIST/raw").glob("*.gz"):
        shutil.copyfile(file, raw / file.name)
    return tmp_path


@needs_mnist
def test_mnist_reads_its_files_without_network(mnist_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """0.1307 is MNIST's well-known mean pixel. 52.9 is the loss of the mean image, summed over pixels as in the paper."""
    images = load_dataset("mnist", mnist_dir, download=False)
    assert (images.train.shape, images.test.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert images.train_labels is not None
    assert images.test_labels is not None
    assert images.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert images.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(images.to_unit(images.train).mean()) == pytest.approx(0.1307, abs=5e-5)
    assert mean_predictor_loss(images) == pytest.approx(52.9, abs=0.1)
    assert (images.name, images.checksum) == ("mnist", "3bee7078728ec19c")
    images.save(mnist_dir / "images.safetensors")
    assert ImageSet.load(mnist_dir / "images.safetensors").checksum == images.checksum
    assert len(list((mnist_dir / "MNIST/raw").iterdir())) == 4  # nothing was unpacked or written
    assert capfd.readouterr() == ("", "")


@needs_mnist
def test_mnist_names_the_damaged_file_and_its_folder(mnist_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = mnist_dir / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    what = re.escape(f"put these official files into {damaged.parent}: t10k-labels-idx1-ubyte.gz (damaged)") + "$"
    fails(what, "mnist", mnist_dir, download=False)
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [f"http://127.0.0.1:{free_ports(1)[0]}/"])
    fails(what, "mnist", mnist_dir)


def test_mnist_refuses_soon_without_network_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [f"http://127.0.0.1:{free_ports(1)[0]}/"])
    start = time.monotonic()
    fails(r"cannot download train-images.*MNIST/raw: train-images-idx3-ubyte.gz \(absent\), train-labels", "mnist", tmp_path)
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_fetch_gives_up_on_a_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "PATIENCE", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(UserError, match="cannot download file"):
            download_module.fetch([f"http://127.0.0.1:{silent.getsockname()[1]}/file"], tmp_path / "file", "0" * 32)
        assert time.monotonic() - start < 3


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the local address that serves it."""
    folder = tmp_path_factory.mktemp("served")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()


def test_fetch_takes_the_mirror_whose_md5_is_right(server: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = server
    (folder / "bad").write_bytes(b"not this")
    (folder / "good").write_bytes(b"this")
    target, md5 = tmp_path / "new" / "file", hashlib.md5(b"this").hexdigest()
    download_module.fetch([url + "absent", url + "bad", url + "good"], target, md5)
    assert target.read_bytes() == b"this"
    assert list(target.parent.iterdir()) == [target]
    (folder / "good").unlink()
    download_module.fetch([url + "good"], target, md5)  # the file is there already, so nothing is downloaded
    with pytest.raises(UserError, match=r"404.*another md5"):
        download_module.fetch([url + "good", url + "bad"], tmp_path / "other", md5)


@needs_mnist
def test_mnist_downloads_absent_files(
    server: tuple[Path, str], mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = server
    for file in (mnist_dir / "MNIST/raw").iterdir():
        file.rename(folder / file.name)
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [url])
    assert len(load_dataset("mnist", tmp_path / "fresh").train) == 60_000


@needs_mnist
def test_mnist_asks_only_for_the_files_that_it_did_not_get(
    server: tuple[Path, str], mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = server
    for file in (mnist_dir / "MNIST/raw").glob("train-*"):
        file.rename(folder / file.name)
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [url])
    missing = ", ".join(f"t10k-{what}-ubyte.gz (absent)" for what in ("images-idx3", "labels-idx1"))
    fails(re.escape(f"MNIST/raw: {missing}") + "$", "mnist", tmp_path / "fresh")


def test_cifar10_reads_torchvisions_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test makes a small archive in the official layout: a row of 3072 bytes is an image's red, green and blue planes."""
    source = torchvision_datasets().CIFAR10
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    rows = {name: pixels(2, 3072, seed=i) for i, name in enumerate(names)}
    files = {name: pickle.dumps({"data": rows[name], "labels": [1, 7]}) for name in names}
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    archive = tmp_path / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{source.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(source, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(source, "train_list", [[name, md5[name]] for name in names[:5]])
    monkeypatch.setattr(source, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5["batches.meta"]})

    images = load_dataset("cifar10", tmp_path, download=False)
    assert (images.shape, images.name) == ((3, 32, 32), "cifar10")
    assert np.array_equal(images.train.numpy(), np.concatenate([rows[n] for n in names[:5]]).reshape(-1, 3, 32, 32))
    assert np.array_equal(images.test.numpy(), rows["test_batch"].reshape(-1, 3, 32, 32))
    assert images.train_labels is not None
    assert images.train_labels.tolist() == [1, 7] * 5

    batch = tmp_path / source.base_folder / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])  # a damaged file is unpacked again
    assert load_dataset("cifar10", tmp_path, download=False).checksum == images.checksum
    batch.write_bytes(b"")
    archive.write_bytes(archive.read_bytes()[:-1])
    fails(r"download is off; put the official cifar-10-python.tar.gz \(damaged\)", "cifar10", tmp_path, download=False)


def test_cifar10_refuses_in_one_line_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_datasets().CIFAR10, "url", f"http://127.0.0.1:{free_ports(1)[0]}/cifar")
    fails(r"put the official cifar-10-python.tar.gz \(absent\) into", "cifar10", tmp_path)


def test_load_dataset_lists_the_known_names_for_an_unknown_one(tmp_path: Path) -> None:
    assert {"cifar10", "digits", "mnist"} <= set(dataset_names())
    fails("no data set 'mnst': neither a known name .*cifar10, digits.*mnist", "mnst")
    fails("nor an existing path", tmp_path / "absent.npz")
    fails("no data set ''", "")
    fails("has labels and splits of its own", "digits", label_column="label")


def test_register_dataset_loads_by_name_and_refuses_a_taken_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.DATASETS, "known", dict(registry.DATASETS.known))

    @register_dataset("mine")
    def mine(data_dir: Path) -> ImageSet:
        assert data_dir == tmp_path
        return small_set(name="mine")

    @register_dataset("wrong")
    def wrong(data_dir: Path, download: bool) -> Any:
        return download

    assert "mine" in dataset_names()
    assert load_dataset("mine", tmp_path).checksum == small_set().checksum
    fails("returned bool, not an ImageSet", "wrong", download=False)
    with pytest.raises(UserError, match="'digits' is taken"):
        register_dataset("digits")(mine)


def test_load_dataset_finds_an_entry_point_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "stripes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uvb.datasets]\nstripes = stripes_of_a_test:load\nbroken = stripes_of_a_test:no\n")
    (tmp_path / "stripes_of_a_test.py").write_text(
        "import torch\nfrom uvb.data import ImageSet\n"
        "def load(data_dir):\n"
        "    images = torch.arange(16, dtype=torch.uint8).reshape(2, 1, 4, 2)\n"
        "    return ImageSet('stripes', images, images)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "stripes" in dataset_names()
    assert load_dataset("stripes").shape == (1, 4, 2)
    fails("entry point 'stripes_of_a_test:no' cannot be loaded", "broken")


def test_validation_holds_out_training_images_and_no_test_images(digits):
    chosen = digits.validation()
    assert (len(chosen.train), len(chosen.test)) == (1200, 300)

    def as_bytes(images: torch.Tensor) -> list[bytes]:
        return [bytes(image) for image in images.flatten(1).numpy()]

    assert sorted(as_bytes(torch.cat([chosen.train, chosen.test]))) == sorted(as_bytes(digits.train))
    label_of = dict(zip(as_bytes(digits.train), digits.train_labels.tolist(), strict=True))
    for images, labels in ((chosen.train, chosen.train_labels), (chosen.test, chosen.test_labels)):
        assert [label_of[image] for image in as_bytes(images)] == labels.tolist()
    assert replace(digits, train_labels=None, test_labels=None).validation().test_labels is None
    assert chosen.name == "digits-validation"
    assert chosen.checksum == digits.validation().checksum != digits.checksum
    with pytest.raises(UserError, match="at least 2000"):
        digits.validation(2000)


def test_load_dataset_refuses_the_home_of_an_unknown_user_in_one_line():
    with pytest.raises(UserError, match="no data set '~nosuchuser/x'"):
        load_dataset("~nosuchuser/x")
