"""Images as NumPy arrays, .npz and .npy."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.data_helpers import fails, pixels, seed_zero_order, warned
from uvb.data import load_dataset
from uvb.data.readers import arrays as arrays_module
from uvb.data.readers.pictures import read_pictures


def test_npz_takes_uint8_as_it_is(tmp_path: Path) -> None:
    train, test = pixels(5, 4, 6), pixels(2, 4, 6, seed=1)
    np.savez_compressed(tmp_path / "a.npz", x_train=train, x_test=test, y_train=np.arange(5)[:, None], y_test=np.arange(2))
    images = load_dataset(str(tmp_path / "a.npz"))
    order = seed_zero_order(5)  # images are shuffled, so that the first ones belong to all classes
    assert np.array_equal(images.train[:, 0].numpy(), train[order])
    assert np.array_equal(images.test[:, 0].numpy(), test)
    assert images.train_labels is not None
    assert images.train_labels.tolist() == order.tolist()


def test_number_labels_leaves_no_gaps(tmp_path: Path) -> None:
    """No class is empty: the labels -2, 3, 7 and 1,000,000 become 0 to 3."""
    named = {"x_train": pixels(4, 4, 4), "x_test": pixels(2, 4, 4), "y_train": [-2, 1_000_000, 7, 7], "y_test": [7, 3]}
    np.savez(tmp_path / "a.npz", **named)
    images = load_dataset(str(tmp_path / "a.npz"))
    assert images.train_labels is not None
    assert images.test_labels is not None
    assert images.train_labels.tolist() == np.array([0, 3, 2, 2])[seed_zero_order(4)].tolist()
    assert images.test_labels.tolist() == [2, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npz_rounds_floats_to_255_levels(tmp_path: Path, dtype: type) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    np.savez(tmp_path / "a.npz", train=values.astype(dtype) / dtype(255), test=np.full((2, 8, 8), 0.4999, dtype))
    images = load_dataset(str(tmp_path / "a.npz"))
    assert np.array_equal(images.train.numpy(), values[seed_zero_order(4)])  # pixels of 255 levels stay exact
    assert images.test.unique().tolist() == [127]  # the nearest level


def test_npz_finds_the_channels_first_or_last(tmp_path: Path) -> None:
    array = pixels(10, 5, 6, 3)
    np.savez(tmp_path / "last.npz", images=array, labels=np.array(list("babababaab")))
    np.savez(tmp_path / "first.npz", images=array.transpose(0, 3, 1, 2), labels=np.array([1, 0, 1, 0, 1, 0, 1, 0, 0, 1]))
    last, first = load_dataset(str(tmp_path / "last.npz")), load_dataset(str(tmp_path / "first.npz"))
    assert last.shape == (3, 5, 6)
    assert last.checksum == first.checksum
    assert (len(last.train), len(last.test)) == (8, 2)
    for channels in (1, 3, 4):  # not 2, because a last axis of 2 is taken for a width
        np.savez(tmp_path / f"{channels}.npz", images=pixels(10, 5, 6, channels))
        assert load_dataset(str(tmp_path / f"{channels}.npz")).shape == (channels, 5, 6)
    for shape in ((1, 6, 2), (1, 5, 3), (3, 3, 3)):  # if the first and the last axis may both be channels, the first is taken
        np.savez(tmp_path / "first.npz", images=pixels(10, *shape))
        assert load_dataset(str(tmp_path / "first.npz")).shape == shape


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"train": np.array([[[np.nan]]] * 3), "test": pixels(2, 1, 1)}, "'train' has NaN"),
        ({"train": np.full((2, 4, 4), np.inf), "test": pixels(2, 4, 4)}, "'train' has NaN or infinite"),
        ({"train": pixels(2, 4, 4), "test": np.full((2, 4, 4), 1.5)}, "'test' has floats from 1.5 to 1.5; scale"),
        ({"images": np.full((4, 4, 4), -0.25)}, "floats from -0.25"),
        ({"images": np.zeros((2, 4, 4), np.int64)}, "is int64; uint8"),
        ({"images": pixels(0, 4, 4)}, "'images' is empty"),
        ({"images": pixels(3, 4, 4)}, "number of images: 3; at least four"),
        ({"train": pixels(4, 4, 4), "test": pixels(1, 4, 4)}, "its test set has one image"),
        ({"images": pixels(4, 4)}, r"shape \(4, 4\)"),
        ({"train": pixels(2, 4, 4), "test": pixels(2, 4, 5)}, "must have one size"),
        ({"pictures": pixels(2, 4, 4)}, "it has the arrays pictures; train and test"),
        ({"images": pixels(2, 4, 4), "labels": np.arange(3)}, r"integers or strings of shape \(2,\)"),
        ({"images": np.array([np.zeros((2, 2)), np.zeros((3, 3))], dtype=object)}, "'images' holds Python objects"),
    ],
)
def test_npz_refuses_each_fault_in_one_line(tmp_path: Path, arrays: dict[str, Any], what: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    fails(what, tmp_path / "a.npz")


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_npz_refuses_truncated_files_in_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=pixels(20, 8, 8))
    path.write_bytes(path.read_bytes()[:keep])
    fails("a.npz: not an .npz of plain arrays, or damaged", path)


def test_npz_refuses_flipped_bytes_and_bare_arrays_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=pixels(20, 8, 8))
    content = bytearray(path.read_bytes())
    content[700] ^= 255
    path.write_bytes(content)
    fails("damaged .*CRC", path)
    with path.open("wb") as file:
        np.save(file, pixels(20, 8, 8))
    fails("not an .npz of plain arrays", path)


def test_npz_joins_three_splits_and_leaves_out_several_labels_an_image(tmp_path: Path) -> None:
    counts = {"train": 6, "val": 3, "test": 2}
    many = {f"{split}_labels": np.eye(3, dtype=int)[np.arange(count) % 3] for split, count in counts.items()}
    arrays = {f"{split}_images": pixels(count, 4, 4, seed=count) for split, count in counts.items()}
    np.savez(tmp_path / "a.npz", **arrays, **many)
    images = load_dataset(str(tmp_path / "a.npz"))
    assert (len(images.train), len(images.test), images.train_labels) == (9, 2, None)
    assert warned(images, "array 'train_labels' has 3 labels per image; they are left out")


def test_npz_does_not_read_other_objects(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=pixels(8, 4, 4), metadata=np.array({"a": 1}, dtype=object))
    assert len(load_dataset(str(tmp_path / "a.npz")).train) == 6


def test_npz_refuses_bombs_and_false_headers_before_they_take_memory(tmp_path: Path) -> None:
    """One file of a megabyte unpacks to a gigabyte. The header of another file claims terabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 30, 1, 1)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as bomb, bomb.open("images.npy", "w") as file:
        file.write(header.getvalue())
        for _ in range(1 << 6):
            file.write(bytes(1 << 24))
    fails(r"unpacks from 1\.\d MB to 1\.1 GB, too much for images", tmp_path / "bomb.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 64, 64)})
    (tmp_path / "claim.npy").write_bytes(header.getvalue() + bytes(100))
    fails("claims 4,503,599,627,370,496 bytes .*, but has 100: it is damaged", tmp_path / "claim.npy")


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_one_set_in_either_memory_order(tmp_path: Path, order: str) -> None:
    array = pixels(20, 5, 6)
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    images = load_dataset(str(tmp_path / "a.npy"))
    assert (images.name, images.train_labels) == ("a", None)
    assert np.array_equal(images.train[:, 0].numpy(), array[seed_zero_order(20)[2:]])


@pytest.mark.parametrize("name", ["A.NPZ", "a.Npy"])
def test_load_dataset_reads_arrays_by_a_suffix_in_any_case(tmp_path: Path, name: str) -> None:
    array, path = pixels(20, 5, 6), tmp_path / name
    with path.open("wb") as file:
        np.savez(file, images=array) if name == "A.NPZ" else np.save(file, array)
    assert np.array_equal(load_dataset(path).train[:, 0].numpy(), array[seed_zero_order(20)[2:]])
    assert np.allclose(read_pictures(path, (1, 5, 6), 1.0)[0][:, 0].numpy() * 255, array, atol=1e-4)
    path.write_bytes(b"damaged")
    fails(f"{name}: not an {path.suffix} of plain arrays", path)


def test_npz_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays_module, "BLOCK_BYTES", 100)
    array = pixels(50, 4, 4)
    np.savez_compressed(tmp_path / "a.npz", images=array / 255)
    images = load_dataset(str(tmp_path / "a.npz"))
    assert np.array_equal(images.train[:, 0].numpy(), array[seed_zero_order(50)[5:]])


@pytest.mark.parametrize(("labels", "hidden"), [([-1] * 4, True), ([0, 1, -1, 1], True), ([-1, 1, -1, 1], False)])
def test_number_labels_counts_minus_one_as_hidden_unless_it_is_one_of_two_classes(
    tmp_path: Path, labels: list[int], hidden: bool
) -> None:
    np.savez(tmp_path / "a.npz", train=pixels(4, 4, 4), test=pixels(2, 4, 4, seed=1), y_train=labels, y_test=[1, 1])
    images = load_dataset(str(tmp_path / "a.npz"))
    assert (images.train_labels is None) == hidden
    assert warned(images, "which means hidden") == hidden
