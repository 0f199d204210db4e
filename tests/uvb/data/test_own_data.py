"""One's own images, as Parquet, .npz or a folder: exact contents, fixed splits, one clear line for what is wrong."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.support.data_helpers import SHARED, fails, needs_cifar, pixels, png, seed_zero_order
from uvb.data import load_dataset

# One's own files: Parquet


def write_parquet(path: Path, images: list[bytes | None], column: str = "image", **columns: Any) -> Path:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    structs = pa.array([{"bytes": image, "path": None} for image in images], kind)
    pq.write_table(pa.table({column: structs, **columns}), path)
    return path


@needs_cifar
def test_the_shared_cifar10_parquet_folder() -> None:
    images = load_dataset(str(SHARED / "cifar10"))
    assert (images.name, images.train.shape, images.test.shape) == ("cifar10", (10_000, 3, 32, 32), (2_000, 3, 32, 32))
    assert images.train_labels is not None
    assert images.test_labels is not None
    assert images.train_labels.bincount().tolist() == [1000] * 10
    assert images.test_labels.bincount().tolist() == [200] * 10
    row = pq.read_table(SHARED / "cifar10/test-00000-of-00001.parquet").slice(17, 1).to_pylist()[0]
    expected = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])))  # (H, W, 3)
    assert np.array_equal(images.test[17].permute(1, 2, 0).numpy(), expected)
    assert len(images.train_labels[:100].unique()) == 10


def test_parquet_file_is_split_nine_to_one_by_the_fixed_permutation(tmp_path: Path) -> None:
    array = pixels(20, 5, 7)
    path = write_parquet(tmp_path / "faces.parquet", [png(image) for image in array], label=list(range(20)))
    images = load_dataset(str(path))
    order = seed_zero_order(20)
    assert (images.name, images.shape, images.levels) == ("faces", (1, 5, 7), 255)
    assert np.array_equal(images.test[:, 0].numpy(), array[order[:2]])
    assert np.array_equal(images.train[:, 0].numpy(), array[order[2:]])
    assert images.train_labels is not None
    assert images.train_labels.tolist() == order[2:].tolist()
    assert load_dataset(str(path)).checksum == images.checksum


@pytest.mark.parametrize("test_name", ["test-0.parquet", "validation-0.parquet"])
def test_parquet_folder_is_split_by_name_and_string_labels_are_numbered(tmp_path: Path, test_name: str) -> None:
    array = pixels(6, 4, 4, 3)
    write_parquet(tmp_path / "train-0.parquet", [png(a) for a in array[:2]], "img", kind=["cat", "ant"])
    write_parquet(tmp_path / "train-1.parquet", [png(a) for a in array[2:4]], "img", kind=["cat", "cat"])
    write_parquet(tmp_path / test_name, [png(a) for a in array[4:]], "img", kind=["bee", "ant"])
    images = load_dataset(str(tmp_path), label_column="kind")
    assert np.array_equal(images.train.permute(0, 2, 3, 1).numpy(), array[seed_zero_order(4)])
    assert np.array_equal(images.test.permute(0, 2, 3, 1).numpy(), array[4:])
    assert images.train_labels is not None
    assert images.train_labels.tolist() == [2, 0, 2, 2]
    assert images.test_labels is not None
    assert images.test_labels.tolist() == [1, 0]
    assert load_dataset(str(tmp_path)).train_labels is None  # no column "label", none asked for


def test_unnamed_shards_are_one_set(tmp_path: Path) -> None:
    for shard in range(2):
        write_parquet(tmp_path / f"part-{shard}.parquet", [png(a) for a in pixels(5, 4, 4, seed=shard)])
    images = load_dataset(str(tmp_path))
    assert (len(images.train), len(images.test)) == (8, 2)


def test_bad_parquet_is_one_line_each(tmp_path: Path) -> None:
    grey, colour = png(pixels(1, 4, 4)[0]), png(pixels(1, 4, 4, 3)[0])
    path = write_parquet(tmp_path / "a.parquet", [grey] * 40, label=[1] * 40)
    fails("no label column 'kind'; it has image, label", path, label_column="kind")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    fails("a.parquet: not a Parquet file, or damaged", path)
    fails("not a Parquet file, or damaged", tmp_path)  # the same, as a folder of shards
    path.write_bytes(b"")
    fails("not a Parquet file, or damaged", path)
    fails("training set is empty", write_parquet(path, []))
    fails("images in it: 3; at least four are needed", write_parquet(path, [grey] * 3))
    fails("no column 'image' or 'img'; it has photo", write_parquet(path, [grey], "photo"))
    fails("row 1 has no image bytes", write_parquet(path, [grey, None, grey]))
    fails("row 2 is not an image that can be read", write_parquet(path, [grey, grey, b"no image", grey]))
    fails("row 1 is not an image that can be read .*truncated", write_parquet(path, [grey, grey[:-30]]))
    fails("row 1 is 4×4 RGB, but .*row 0 is 4×4 grey", write_parquet(path, [grey, colour, colour]))
    fails("has 1 empty rows", write_parquet(path, [grey] * 2, label=[1, None]))
    fails("'label' is double; integers or strings", write_parquet(path, [grey] * 2, label=[0.5, 1.0]))
    pq.write_table(pa.table({"image": [1, 2]}), path)
    fails("its images are int64", path)
    path.unlink()
    write_parquet(tmp_path / "test-0.parquet", [grey])
    fails("no train", tmp_path)
    write_parquet(tmp_path / "train-0.parquet", [grey], label=[1])
    write_parquet(tmp_path / "train-1.parquet", [grey])
    fails("the same label column", tmp_path)


def test_the_first_offender_is_named_even_far_down(tmp_path: Path) -> None:
    """Images are decoded by several threads in blocks; the report must not depend on which of them comes first."""
    images: list[bytes | None] = [png(a) for a in pixels(600, 4, 4)]
    images[300] = images[500] = png(pixels(1, 4, 5)[0])
    fails("row 300 is 5×4 grey, but .*row 0 is 4×4 grey", write_parquet(tmp_path / "a.parquet", images))


# One's own files: npz


def test_npz_of_uint8_is_taken_as_it_is(tmp_path: Path) -> None:
    train, test = pixels(5, 4, 6), pixels(2, 4, 6, seed=1)
    np.savez_compressed(tmp_path / "a.npz", x_train=train, x_test=test, y_train=np.arange(5)[:, None], y_test=np.arange(2))
    images = load_dataset(str(tmp_path / "a.npz"))
    order = seed_zero_order(5)  # so that the first so many are of all classes, however the file is sorted
    assert np.array_equal(images.train[:, 0].numpy(), train[order])
    assert np.array_equal(images.test[:, 0].numpy(), test)
    assert images.train_labels is not None
    assert images.train_labels.tolist() == order.tolist()


def test_integer_labels_are_numbered_without_gaps(tmp_path: Path) -> None:
    """Labels that begin at 1, or are ids, would give a class that never occurs, or a transition matrix without end."""
    named = {"x_train": pixels(4, 4, 4), "x_test": pixels(2, 4, 4), "y_train": [-1, 1_000_000, 7, 7], "y_test": [7, 3]}
    np.savez(tmp_path / "a.npz", **named)
    images = load_dataset(str(tmp_path / "a.npz"))
    assert images.train_labels is not None
    assert images.test_labels is not None
    assert images.train_labels.tolist() == np.array([0, 3, 2, 2])[seed_zero_order(4)].tolist()
    assert images.test_labels.tolist() == [2, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npz_of_floats_is_rounded_to_255_levels(tmp_path: Path, dtype: type) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    np.savez(tmp_path / "a.npz", train=values.astype(dtype) / dtype(255), test=np.full((2, 8, 8), 0.4999, dtype))
    images = load_dataset(str(tmp_path / "a.npz"))
    assert np.array_equal(images.train.numpy(), values[seed_zero_order(4)])  # exact for what has 255 levels
    assert images.test.unique().tolist() == [127]  # the nearest level


def test_npz_channels_first_and_last(tmp_path: Path) -> None:
    array = pixels(10, 5, 6, 3)
    np.savez(tmp_path / "last.npz", images=array, labels=np.array(list("babababaab")))
    np.savez(tmp_path / "first.npz", images=array.transpose(0, 3, 1, 2), labels=np.array([1, 0, 1, 0, 1, 0, 1, 0, 0, 1]))
    last, first = load_dataset(str(tmp_path / "last.npz")), load_dataset(str(tmp_path / "first.npz"))
    assert last.shape == (3, 5, 6)
    assert last.checksum == first.checksum
    assert (len(last.train), len(last.test)) == (8, 2)
    for channels in (1, 3, 4):  # a last axis of 2 is a width
        np.savez(tmp_path / f"{channels}.npz", images=pixels(10, 5, 6, channels))
        assert load_dataset(str(tmp_path / f"{channels}.npz")).shape == (channels, 5, 6)
    for first in ((1, 6, 2), (1, 5, 3), (3, 3, 3)):  # where the first may be the channels, it is
        np.savez(tmp_path / "first.npz", images=pixels(10, *first))
        assert load_dataset(str(tmp_path / "first.npz")).shape == first


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"train": np.array([[[np.nan]]] * 3), "test": pixels(2, 1, 1)}, "'train' has NaN"),
        ({"train": np.full((2, 4, 4), np.inf), "test": pixels(2, 4, 4)}, "'train' has NaN or infinite"),
        ({"train": pixels(2, 4, 4), "test": np.full((2, 4, 4), 1.5)}, "'test' has floats from 1.5 to 1.5; scale"),
        ({"images": np.full((2, 4, 4), -0.25)}, "floats from -0.25"),
        ({"images": np.zeros((2, 4, 4), np.int64)}, "is int64; uint8"),
        ({"images": pixels(0, 4, 4)}, "'images' is empty"),
        ({"images": pixels(3, 4, 4)}, "images in it: 3; at least four"),
        ({"train": pixels(4, 4, 4), "test": pixels(1, 4, 4)}, "its test set has one image"),
        ({"images": pixels(4, 4)}, r"shape \(4, 4\)"),
        ({"train": pixels(2, 4, 4), "test": pixels(2, 4, 5)}, "must have one size"),
        ({"pictures": pixels(2, 4, 4)}, "it has the arrays pictures; train and test"),
        ({"images": pixels(2, 4, 4), "labels": np.arange(3)}, r"integers or strings of shape \(2,\)"),
        ({"images": np.array([np.zeros((2, 2)), np.zeros((3, 3))], dtype=object)}, "not an .npz of plain arrays"),
    ],
)
def test_bad_npz_is_one_line_each(tmp_path: Path, arrays: dict[str, Any], what: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    fails(what, tmp_path / "a.npz")


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_damaged_npz_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=pixels(20, 8, 8))
    path.write_bytes(path.read_bytes()[:keep])
    fails("a.npz: not an .npz of plain arrays, or damaged", path)


def test_npz_with_flipped_bytes_or_a_bare_array_inside_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=pixels(20, 8, 8))
    content = bytearray(path.read_bytes())
    content[700] ^= 255
    path.write_bytes(content)
    fails("damaged .*CRC", path)
    with path.open("wb") as file:
        np.save(file, pixels(20, 8, 8))
    fails("not an .npz of plain arrays", path)


# One's own files: a folder of images


def test_folder_with_train_and_test_and_classes(tmp_path: Path) -> None:
    colours = {"blue": (0, 0, 255), "red": (255, 0, 0)}
    for split, count in (("train", 3), ("test", 2)):
        for name, colour in colours.items():
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (6, 4), colour).save(tmp_path / split / name / f"{index}.png")
    (tmp_path / "train" / "red" / ".hidden.png").write_bytes(b"not an image")
    images = load_dataset(str(tmp_path))
    assert (images.train.shape, images.test.shape) == ((6, 3, 4, 6), (4, 3, 4, 6))
    assert images.train_labels is not None
    assert images.test_labels is not None
    assert sorted(images.train_labels.tolist()) == [0, 0, 0, 1, 1, 1]
    for pixel, label in zip(images.train[:, :, 0, 0].tolist(), images.train_labels.tolist(), strict=True):
        assert tuple(pixel) == colours[["blue", "red"][label]]


def test_flat_folder_without_labels_is_split_and_its_order_is_fixed(tmp_path: Path) -> None:
    for index in range(20):
        Image.new("L", (4, 4), index).save(tmp_path / f"{index:02}.{'png' if index % 2 else 'JPG'}", quality=100)
    images = load_dataset(str(tmp_path))
    assert (images.shape, len(images.train), len(images.test)) == ((1, 4, 4), 18, 2)
    assert images.train_labels is None
    assert sorted(torch.cat([images.train, images.test])[:, 0, 0, 0].tolist()) == list(range(20))
    assert load_dataset(str(tmp_path)).checksum == images.checksum


def test_bilevel_images_are_black_and_white(tmp_path: Path) -> None:
    for index in range(4):
        Image.new("1", (3, 3), index % 2).save(tmp_path / f"{index}.png")
    images = load_dataset(str(tmp_path))
    assert sorted(torch.cat([images.train, images.test]).unique().tolist()) == [0, 255]


def test_bad_folders_are_one_line_each(tmp_path: Path) -> None:
    fails("no images; a folder of PNG or JPEG", tmp_path)
    fails("only Parquet has columns", tmp_path, label_column="label")
    for index in range(3):
        Image.new("L", (4, 4)).save(tmp_path / f"{index}.png")
    Image.new("L", (4, 5)).save(tmp_path / "odd.png")
    fails("all images must have one size", tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "odd.png")
    fails("4×4 RGB", tmp_path)
    Image.new("RGBA", (4, 4)).save(tmp_path / "odd.png")
    fails("odd.png has mode RGBA; convert", tmp_path)
    (tmp_path / "odd.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    fails("odd.png is not an image that can be read", tmp_path)
    (tmp_path / "odd.png").unlink()
    (tmp_path / "class").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "class" / "9.png")
    fails("lies beside subfolders", tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "notes.txt").write_text("no data")
    fails("train: no images", tmp_path)
    fails("give a .parquet or .npz file", tmp_path / "notes.txt")
