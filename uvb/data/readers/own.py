"""Load the user's own images, by a path or by a name on the Hugging Face hub.

The first load converts the images into one file. Later loads map this file into memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uvb.data import cache
from uvb.data.convert import Job, Progress, convert
from uvb.data.image_file import Contents, ImageFile
from uvb.data.image_set import ImageSet
from uvb.data.readers.arrays import is_array, read_arrays
from uvb.data.readers.choice import Choice, Wanted, choose, number_labels, order_of
from uvb.data.readers.decode import AS_IT_IS, Decoding
from uvb.data.readers.folder import read_folder
from uvb.data.readers.hub import load_hub
from uvb.data.readers.listing import Listing, list_files
from uvb.data.readers.source import Source, Split
from uvb.data.readers.tables import SUFFIXES, Columns, from_datasets, read_tables
from uvb.data.report import ReadReport, doubts, splits_read
from uvb.data.survey import Survey
from uvb.errors import UserError
from uvb.naming import dataset_stem

VERSION = 1  # increase this when the conversion changes, so that every set is converted again


@dataclass(frozen=True)
class ReadOptions:
    """How to read the user's own images.

    Attributes:
        image_column: the column of images in Parquet or Arrow. None: ``image``, ``img`` or ``pixel_values``.
        label_column: the column of labels. None: ``label`` or ``labels``, if there is one.
        split: the user's choice of splits, ``("train=NAME", "test=NAME")``. Empty: the usual names.
        decoding: how each picture becomes pixels.
    """

    image_column: str | None = None
    label_column: str | None = None
    split: tuple[str, ...] = ()
    decoding: Decoding = AS_IT_IS


def load_path(path: Path, options: ReadOptions, progress: Progress | None = None) -> ImageSet:
    """Load images from a Parquet or Arrow file, a folder of shards, an ``.npz`` or ``.npy``, or a folder of pictures.

    The first call checks every image and writes the converted set into the cache (`uvb.data.cache`). Later calls use this set,
    as long as the names, sizes and times of the files stay the same. Training images are in a fixed random order. If there is
    no test set, a tenth of the images becomes the test set (`uvb.data.readers.choice`).

    Raises:
        UserError: the path has another kind of file, or the images are damaged or unfit.
    """
    path = path.resolve()
    Wanted.parse(options.split)  # refuse a wrong --split before the files are listed
    listing = list_files(path)
    key = listing.fingerprint(VERSION, options)
    return _converted(key, dataset_stem(path.name) or "data", options, str(path), progress,
                      read=lambda: _read(listing, options),
                      unchanged=lambda: list_files(path).fingerprint(VERSION, options) == key)  # fmt: skip


def load_from_hub(name: str, options: ReadOptions, download: bool = True, progress: Progress | None = None) -> ImageSet:
    """Load images of the hub, ``hf:owner/name[:config]``. They are converted as in `load_path`.

    Raises:
        UserError: the images are damaged or unfit, or there is neither a network nor a copy in the cache.
    """
    splits, where = load_hub(name, download), f"hf:{name}"
    versions = [f"{split} {dataset._fingerprint} {len(dataset)}" for split, dataset in splits.items()]
    key = Listing(Path(where), []).fingerprint(VERSION, options, *versions)
    columns = Columns(options.image_column, options.label_column)
    return _converted(key, dataset_stem(where), options, where, progress,
                      read=lambda: from_datasets(splits, columns, "the Hugging Face hub", where),
                      unchanged=lambda: True)  # fmt: skip


def _read(listing: Listing, options: ReadOptions) -> Source:
    """Find the images with the reader that fits the files."""
    path, columns = listing.root, Columns(options.image_column, options.label_column)
    if any((file.path or path.name).lower().endswith(SUFFIXES) for file in listing.files):
        return read_tables(listing, columns)
    if columns != Columns():
        asked = "label_column" if columns.label is not None else "image_column"
        raise UserError(f"{asked} = {getattr(options, asked)!r}: only Parquet and Arrow have columns, and {path} is neither")
    if path.is_dir():
        wanted = Wanted.parse(options.split)
        return read_folder(listing, frozenset((*wanted.train, *wanted.test)))
    if is_array(path):
        return read_arrays(path)
    raise UserError(
        f"{path}: give a .parquet, .arrow, .npz or .npy file, a folder of Parquet or Arrow shards, or a folder of images"
    )


def _converted(
    key: str,
    name: str,
    options: ReadOptions,
    where: str,
    progress: Progress | None,
    read: Callable[[], Source],
    unchanged: Callable[[], bool],
) -> ImageSet:
    """The converted set with this key. Convert it now if the cache does not have it.

    Args:
        key: the fingerprint of the source files and the options.
        name: the name of the data set.
        where: how error messages name the source.
        read: a function that finds the images.
        unchanged: a function that tells whether the source files still have this fingerprint.
    """
    if (found := cache.find(key, name)) is not None:
        return found
    source = read()
    choice = choose(source, Wanted.parse(options.split), where)
    order, train_images = order_of(choice)
    labels = number_labels(choice, source, order, train_images, where)
    pieces = [piece for split in (*choice.train, *choice.test) for piece in split.pieces]
    with cache.workplace(key) as folder:
        if (found := cache.find(key, name)) is not None:  # another process converted it while this one waited
            return found

        def file_of(shape: tuple[int, int, int]) -> ImageFile:
            counts = train_images, len(order) - train_images
            contents = Contents(name, shape, *counts, labels.train, labels.test, 255, labels.classes)
            return ImageFile(folder / "images.part", contents)

        file, widened = convert(Job.of(pieces, order, options.decoding), file_of, folder, progress)
        if not unchanged():
            raise UserError(f"{where}: files changed while they were read; run again when no other program writes to them")
        with cache.writing():
            checksum, survey = file.seal()
        return cache.keep(key, checksum, file, _report(where, source, choice, file.contents, widened, survey))


def _report(where: str, source: Source, choice: Choice, held: Contents, widened: int, survey: Survey) -> ReadReport:
    warnings = [*source.warnings, *doubts(survey, held.test_images, held.levels)]
    if widened:
        warnings.append(f"{widened:,} of {held.images:,} images are grey and the others are in colour: all are read as colour")
    train, test = _origin(choice.train), _origin(choice.test)
    if not choice.test:
        train, test = f"{train} (a random nine tenths)", f"{train} (a random tenth, as the files have no test set)"
    counts, labels = (held.train_images, held.test_images), (held.train_labels, held.test_labels)
    splits = splits_read((train, test), counts, labels, len(held.classes))
    return ReadReport(where, source.kind, splits, held.shape, held.levels, survey.darkest, survey.brightest,
                      survey.mean / held.levels, held.classes, (*source.skipped, *choice.skipped),
                      tuple(dict.fromkeys(warnings)))  # fmt: skip


def _origin(splits: list[Split]) -> str:
    if len(splits) == 1:
        return splits[0].origin
    return ", ".join(f"{split.count:,} of {split.origin}" for split in splits)
