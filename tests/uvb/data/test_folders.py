"""Images as pictures in a folder."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.data_helpers import encoded, fails, pixels, png, put, put_classes, same_images, warned
from uvb.data import load_dataset
from uvb.data.readers.decode import Decoding
from uvb.data.readers.listing import list_files
from uvb.data.readers.own import ReadOptions
from uvb.errors import UserError


def test_folder_reads_train_and_test_and_classes(tmp_path: Path) -> None:
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


def test_folder_splits_flat_pictures_in_a_fixed_order(tmp_path: Path) -> None:
    for index in range(20):
        Image.new("L", (4, 4), index).save(tmp_path / f"{index:02}.{'png' if index % 2 else 'JPG'}", quality=100)
    images = load_dataset(str(tmp_path))
    assert (images.shape, len(images.train), len(images.test)) == ((1, 4, 4), 18, 2)
    assert images.train_labels is None
    assert sorted(torch.cat([images.train, images.test])[:, 0, 0, 0].tolist()) == list(range(20))
    assert load_dataset(str(tmp_path)).checksum == images.checksum


def test_folder_reads_bilevel_pictures_as_black_and_white(tmp_path: Path) -> None:
    for index in range(4):
        Image.new("1", (3, 3), index % 2).save(tmp_path / f"{index}.png")
    images = load_dataset(str(tmp_path))
    assert sorted(torch.cat([images.train, images.test]).unique().tolist()) == [0, 255]


def test_folder_refuses_each_fault_in_one_line(tmp_path: Path) -> None:
    fails("no images .*; give a folder of pictures", tmp_path)
    fails("only Parquet and Arrow have columns", tmp_path, label_column="label")
    for index in range(3):
        Image.new("L", (4, 4)).save(tmp_path / f"{index}.png")
    Image.new("L", (4, 5)).save(tmp_path / "odd.png")
    fails("all images must have one size", tmp_path)
    Image.new("RGBA", (4, 4)).save(tmp_path / "odd.png")
    fails("odd.png is partly transparent; .*--background black, or white", tmp_path)
    (tmp_path / "odd.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    fails("odd.png is not an image that can be read", tmp_path)
    (tmp_path / "odd.png").unlink()
    (tmp_path / "class").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "class" / "9.png")
    fails("lies beside sub-folders", tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "notes.txt").write_text("no data")
    fails("give a .parquet, .arrow, .npz or .npy file, a folder of Parquet", tmp_path / "notes.txt")


# Which folders are splits


@pytest.mark.parametrize(
    ("train", "test"),
    [("training", "testing"), ("train", "valid"), ("Train", "VAL"), ("TRAINING", "dev"), ("train", "eval")],
)
def test_folder_knows_the_names_of_splits_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    put_classes(tmp_path / train, 3, "ant", "bee")
    put_classes(tmp_path / test, 2, "ant", "bee", seed=1)
    images = load_dataset(str(tmp_path))
    assert (len(images.train), len(images.test), images.classes) == (6, 4, ("ant", "bee"))


def test_folder_joins_validation_to_training_where_there_is_a_test_set(tmp_path: Path) -> None:
    for number, (split, count) in enumerate((("train", 5), ("val", 3), ("test", 2))):
        put_classes(tmp_path / split, count, "ant", seed=number)
    images = load_dataset(str(tmp_path))
    assert (len(images.train), len(images.test)) == (8, 2)
    assert images.report is not None
    assert images.report.splits[0].origin == "5 of train/, 3 of val/"


def test_folder_takes_classes_named_like_splits_as_classes(tmp_path: Path) -> None:
    put_classes(tmp_path, 10, "car", "plane", "train")
    images = load_dataset(str(tmp_path))
    assert (len(images.train) + len(images.test), images.classes) == (30, ("car", "plane", "train"))


def test_folder_takes_a_lone_train_with_classes_as_a_split(tmp_path: Path) -> None:
    put_classes(tmp_path / "train", 10, "ant", "bee")
    put_classes(tmp_path, 2, "figures", seed=1)
    images = load_dataset(str(tmp_path))
    assert (len(images.train) + len(images.test), images.classes) == (20, ("ant", "bee"))
    assert warned(images, "pictures left out because they lie outside the folders train/: 2")


def test_folder_enters_folders_that_only_wrap_the_set(tmp_path: Path) -> None:
    put_classes(tmp_path / "faces" / "faces" / "train", 3, "ant", "bee")
    put_classes(tmp_path / "faces" / "faces" / "test", 2, "ant", "bee", seed=1)
    images = load_dataset(str(tmp_path))
    assert (len(images.train), len(images.test), images.classes) == (6, 4, ("ant", "bee"))


def test_folder_refuses_two_folders_of_one_split(tmp_path: Path) -> None:
    for split in ("train", "val", "valid"):
        put_classes(tmp_path / split, 3, "ant")
    fails("the folders .*val.*valid mean the same split; choose with --split", tmp_path)


def test_folder_takes_the_splits_chosen_by_hand(tmp_path: Path) -> None:
    for number, split in enumerate(("fold1", "fold2", "fold3")):
        put_classes(tmp_path / split, 2 + number, "ant", "bee", seed=number)
    images = load_dataset(str(tmp_path), options=ReadOptions(split=("train=fold1+fold3", "test=fold2")))
    assert (len(images.train), len(images.test), images.classes) == (12, 6, ("ant", "bee"))
    assert load_dataset(str(tmp_path)).classes == ("fold1", "fold2", "fold3")  # without --split the folders are classes
    for words, said in (
        (("test=fold2",), "the training split is missing"),
        (("train=fold1", "test=fold1"), "fold1 is in both train and test"),
        (("train=fold1+fold1", "test=fold2"), "--split names fold1 twice; no image may count twice"),
        (("train:fold1",), "give train=NAME test=NAME"),
        (("train=fold1", "test=fold9"), "no split 'fold9'; it has"),
    ):
        fails(said, tmp_path, options=ReadOptions(split=words))


def test_choose_refuses_two_names_of_one_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        put_classes(tmp_path / split, 3, "ant")
    for words in (("train=val+validation",), ("train=val", "test=validation")):
        fails("--split names val twice; no image may count twice", tmp_path, options=ReadOptions(split=words))


def test_report_counts_one_image_in_the_singular(tmp_path: Path) -> None:
    put_classes(tmp_path / "faces", 3, "ant", "bee")
    report = load_dataset(str(tmp_path / "faces")).validation(one_in=4).report  # 1 of the 4 training images is held out
    assert report is not None
    assert [line.split(" from")[0] for line in report.lines()[1:3]] == ["  train: 3 images", "  test: 1 image"]


# Which files are pictures


def test_folder_leaves_hidden_folders_out_and_says_so(tmp_path: Path) -> None:
    put_classes(tmp_path, 4, "ant", "bee")
    put_classes(tmp_path, 1, ".ipynb_checkpoints", "__MACOSX")
    images = load_dataset(str(tmp_path))
    assert (len(images.train) + len(images.test), images.classes) == (8, ("ant", "bee"))
    assert images.report is not None
    assert [(item.why, item.count) for item in images.report.skipped] == [("hidden files and folders", 2)]


def test_folder_follows_links_to_folders_once(tmp_path: Path) -> None:
    put_classes(tmp_path / "set", 4, "ant")
    put_classes(tmp_path / "elsewhere", 4, "bee", seed=1)
    os.symlink(tmp_path / "elsewhere" / "bee", tmp_path / "set" / "bee")
    os.symlink(tmp_path / "set", tmp_path / "set" / "ant" / "loop")  # following this link would never end
    images = load_dataset(str(tmp_path / "set"))
    assert (len(images.train) + len(images.test), images.classes) == (8, ("ant", "bee"))


def test_load_dataset_takes_the_label_column_only_once() -> None:
    with pytest.raises(UserError, match="label_column and options are both given; put the label column into options"):
        load_dataset("./faces", label_column="age", options=ReadOptions())


def test_folder_follows_no_loop_below_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "sub").mkdir(parents=True)
    (tmp_path / "set").mkdir()
    (tmp_path / "elsewhere" / "sub" / "x.png").write_bytes(b"")
    os.symlink(tmp_path / "elsewhere" / "sub", tmp_path / "elsewhere" / "sub" / "loop")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "link")
    assert [file.path for file in list_files(tmp_path / "set").files] == ["link/sub/x.png"]


def test_folder_counts_broken_links(tmp_path: Path) -> None:
    put_classes(tmp_path, 8, "ant")
    for path in sorted(tmp_path.rglob("*.png"))[::2]:
        path.unlink()
        os.symlink("absent", path)
    images = load_dataset(str(tmp_path))
    assert len(images.train) + len(images.test) == 4
    assert warned(images, "broken links left out: 4, such as ant/000.png")


def test_folder_reads_every_format_that_pillow_decodes_by_itself(tmp_path: Path) -> None:
    """Lossless grey pictures give the same set in every format, although WebP and GIF have no grey mode."""
    array = pixels(12, 4, 4)
    kinds = [("png", "PNG", {}), ("webp", "WEBP", {"lossless": True}), ("bmp", "BMP", {}), ("gif", "GIF", {}),
             ("tiff", "TIFF", {}), ("pgm", "PPM", {})]  # fmt: skip
    for index, image in enumerate(array):
        suffix, kind, options = kinds[index % len(kinds)]
        put(tmp_path / "mixed" / f"{index:02}.{suffix}", encoded(image, kind, **options))
        put(tmp_path / "png" / f"{index:02}.png", png(image))
    mixed = load_dataset(str(tmp_path / "mixed"))
    assert mixed.shape == (1, 4, 4)
    assert same_images(mixed, load_dataset(str(tmp_path / "png")))


def test_folder_says_how_many_pictures_of_other_formats_it_leaves_out(tmp_path: Path) -> None:
    put_classes(tmp_path, 8, "ant")
    for name in ("a.heic", "b.heic", "c.svg", "notes.txt"):
        put(tmp_path / "ant" / name, b"x")
    images = load_dataset(str(tmp_path))
    assert warned(images, "pictures left out because they cannot be read (.heic, .svg): 3; convert them to PNG")
    assert images.report is not None
    assert [item.count for item in images.report.skipped] == [3, 1]


@pytest.mark.parametrize("first", ["colour", "grey"])
def test_folder_reads_grey_among_colours_as_colour(tmp_path: Path, first: str) -> None:
    colour, grey = pixels(6, 4, 4, 3), pixels(6, 4, 4)
    colour_name, grey_name = ("a", "b") if first == "colour" else ("b", "a")
    for index in range(6):
        put(tmp_path / f"{index}{colour_name}.png", png(colour[index]))
        put(tmp_path / f"{index}{grey_name}.png", png(grey[index]))
    images = load_dataset(str(tmp_path))
    assert images.shape == (3, 4, 4)
    assert warned(images, "6 of 12 images are grey and the others are in colour")
    grey_images = sum((image == image[:1]).all() for image in torch.cat([images.train, images.test]).numpy())
    assert grey_images == 6


def test_folder_resizes_and_crops_to_one_size(tmp_path: Path) -> None:
    for index, size in enumerate(((8, 8), (16, 8), (8, 24), (40, 20))):
        Image.new("RGB", size, (index, 2, 3)).save(tmp_path / f"{index}.png")
    fails("1.png is 16×8 RGB, but .*0.png is 8×8 RGB; .*--resize N with --center-crop", tmp_path)
    fails("must have one size", tmp_path, options=ReadOptions(decoding=Decoding(resize=6)))
    images = load_dataset(str(tmp_path), options=ReadOptions(decoding=Decoding(resize=6, center_crop=True)))
    assert images.shape == (3, 6, 6)
    assert sorted(torch.cat([images.train, images.test])[:, 0, 3, 3].tolist()) == [0, 1, 2, 3]


# Warnings


def test_folder_warns_of_dark_pictures(tmp_path: Path) -> None:
    for index in range(6):
        put(tmp_path / f"{index}.png", png(pixels(1, 4, 4, seed=index)[0] % 2))
    assert warned(load_dataset(str(tmp_path)), "the brightest pixel is 1 of 255")


def test_folder_counts_test_images_that_also_train(tmp_path: Path) -> None:
    put_classes(tmp_path / "train", 5, "ant")
    put_classes(tmp_path / "test", 3, "ant")  # three of the training images
    put_classes(tmp_path / "test", 2, "bee", seed=9)
    images = load_dataset(str(tmp_path))
    assert warned(images, "3 of 5 test images are identical to training images")
    assert warned(images, "classes of the test set that are not in the training set: 1, such as bee")
