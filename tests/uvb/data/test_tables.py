"""Images in Parquet and Arrow, in the layouts of the Hugging Face hub."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.data_helpers import (
    SHARED,
    fails,
    needs_cifar,
    pixels,
    png,
    put,
    same_images,
    seed_zero_order,
    warned,
    write_parquet,
)
from uvb.data import load_dataset
from uvb.data.readers.own import ReadOptions


@needs_cifar
def test_parquet_reads_the_shared_cifar10_folder() -> None:
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


def test_parquet_splits_a_file_nine_to_one_by_the_fixed_order(tmp_path: Path) -> None:
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
def test_parquet_splits_a_folder_by_name_and_turns_string_labels_into_numbers(tmp_path: Path, test_name: str) -> None:
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
    assert load_dataset(str(tmp_path)).train_labels is None  # there is no column "label", and none was asked for


def test_parquet_takes_unnamed_shards_as_one_set(tmp_path: Path) -> None:
    for shard in range(2):
        write_parquet(tmp_path / f"part-{shard}.parquet", [png(a) for a in pixels(5, 4, 4, seed=shard)])
    images = load_dataset(str(tmp_path))
    assert (len(images.train), len(images.test)) == (8, 2)


def test_parquet_refuses_each_fault_in_one_line(tmp_path: Path) -> None:
    grey = png(pixels(1, 4, 4)[0])
    path = write_parquet(tmp_path / "a.parquet", [grey] * 40, label=[1] * 40)
    fails("no label column 'kind'; it has image, label", path, label_column="kind")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    fails("a.parquet: not a Parquet file, or damaged", path)
    fails("not a Parquet file, or damaged", tmp_path)  # the same file, as a folder of shards
    path.write_bytes(b"")
    fails("not a Parquet file, or damaged", path)
    fails("training set is empty", write_parquet(path, []))
    fails("number of images: 3; at least four are needed", write_parquet(path, [grey] * 3))
    fails(
        "no column 'image', 'img' or 'pixel_values'; it has photo; choose one with --image-column",
        write_parquet(path, [grey], "photo"),
    )
    fails("row 1 has no image bytes", write_parquet(path, [grey, None, grey, grey]))
    fails("row 2 is not an image that can be read", write_parquet(path, [grey, grey, b"no image", grey]))
    fails("row 1 is not an image that can be read .*truncated", write_parquet(path, [grey, grey[:-30], grey, grey]))
    fails("has 1 empty row$", write_parquet(path, [grey] * 4, label=[1, None, 1, 1]), label_column="label")
    fails("'label' is double; integers or strings", write_parquet(path, [grey] * 4, label=[0.5] * 4), label_column="label")
    pq.write_table(pa.table({"image": [1, 2]}), path)
    fails("images are int64", path)
    path.unlink()
    write_parquet(tmp_path / "test-0.parquet", [grey])
    fails("no train", tmp_path)
    write_parquet(tmp_path / "train-0.parquet", [grey], label=[1])
    write_parquet(tmp_path / "train-1.parquet", [grey])
    fails("different label columns", tmp_path)


def test_parquet_names_the_first_bad_row(tmp_path: Path) -> None:
    """Rows 300 and 500 have another size. test_convert.py has a test with several processes."""
    images: list[bytes | None] = [png(a) for a in pixels(600, 4, 4)]
    images[300] = images[500] = png(pixels(1, 4, 5)[0])
    fails("row 300 is 5×4 grey, but .*row 0 is 4×4 grey", write_parquet(tmp_path / "a.parquet", images))


# Layouts of the hub


def test_parquet_reads_a_clone_with_readme_data_and_pictures(tmp_path: Path) -> None:
    array = pixels(12, 4, 4)
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", [png(a) for a in array[:8]])
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", [png(a) for a in array[8:]])
    put(tmp_path / "README.md", b"---\nlicense: mit\n---\n")
    for index in range(5):  # more pictures than shards
        put(tmp_path / f"figures/{index}.png", png(array[0]))
    images = load_dataset(str(tmp_path))
    assert np.array_equal(images.test[:, 0].numpy(), array[8:])
    assert np.array_equal(images.train[:, 0].numpy(), array[seed_zero_order(8)])
    assert images.report is not None
    assert [(item.why, item.count) for item in images.report.skipped] == [("files beside the shards", 6)]


@pytest.mark.parametrize("held_out", ["val", "validation", "dev", "test", "eval"])
def test_parquet_knows_every_name_of_a_held_out_split(tmp_path: Path, held_out: str) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", [png(a) for a in pixels(6, 4, 4)])
    write_parquet(tmp_path / f"{held_out}-00000-of-00001.parquet", [png(a) for a in pixels(3, 4, 4, seed=1)])
    images = load_dataset(str(tmp_path))
    assert (len(images.train), len(images.test)) == (6, 3)


def test_parquet_names_missing_shards(tmp_path: Path) -> None:
    for shard in (0, 3):
        write_parquet(tmp_path / f"data/train-{shard:05}-of-00004.parquet", [png(a) for a in pixels(6, 4, 4)])
    fails(r"2 of 4 shards are missing \(train-00001-of-00004, train-00002-of-00004\)", tmp_path)


def test_parquet_leaves_hidden_labels_out(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [png(a) for a in pixels(6, 4, 4)], label=[0, 1] * 3)
    write_parquet(tmp_path / "test.parquet", [png(a) for a in pixels(3, 4, 4, seed=1)], label=[-1] * 3)
    images = load_dataset(str(tmp_path))
    assert images.test_labels is None
    assert images.train_labels is not None
    assert images.classes == ("0", "1")
    assert warned(images, "the test labels are left out, because all of them are -1, which means hidden")


def test_parquet_leaves_out_labels_that_are_no_classes(tmp_path: Path) -> None:
    for column in ([0.5] * 6, [[1, 2]] * 6, [1, None, 1, 1, 1, 1]):
        path = write_parquet(tmp_path / "a.parquet", [png(a) for a in pixels(6, 4, 4)], label=column)
        images = load_dataset(str(path))
        assert images.train_labels is None
        assert warned(images, "labels are left out")
        path.unlink()


@pytest.mark.parametrize(("image", "label"), [("img", "labels"), ("pixel_values", "label"), ("photo", "kind")])
def test_parquet_finds_its_columns_or_takes_those_asked_for(tmp_path: Path, image: str, label: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", [png(a) for a in pixels(6, 4, 4)], image, **{label: list("ababab")})
    options = ReadOptions("photo", "kind") if image == "photo" else ReadOptions()
    images = load_dataset(str(path), options=options)
    assert images.classes == ("a", "b")
    fails("no image column 'picture'; it has", path, options=ReadOptions("picture"))


def test_parquet_keeps_the_hubs_names_of_classes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "emu"])})
    rows = {"image": [Image.fromarray(a) for a in pixels(8, 4, 4)], "label": [2, 0] * 4}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.to_parquet(str(tmp_path / "a.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": made, "test": made.select(range(4))}).save_to_disk(str(tmp_path / "split"))
    for path in (tmp_path / "a.parquet", tmp_path / "saved"):
        images = load_dataset(str(path))
        assert images.classes == ("cat", "emu")  # only the classes that occur, in the order of their numbers
    assert same_images(images, load_dataset(str(tmp_path / "a.parquet")))
    assert len(load_dataset(str(tmp_path / "split")).test) == 4


def test_parquet_reads_row_groups_in_pieces(tmp_path: Path) -> None:
    """The first group of 2,000 rows is read in several pieces. Each piece must find its own rows."""
    array = pixels(2500, 2, 2)
    column = pa.array([png(a) for a in array])
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet", row_group_size=2000)
    images = load_dataset(str(tmp_path / "a.parquet"))
    assert np.array_equal(images.train[:, 0].numpy(), array[seed_zero_order(2500)[250:]])
