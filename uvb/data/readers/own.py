"""One's own images, by path or by a name of the Hugging Face hub: read, converted once, and memory-mapped from then on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uvb.data import cache
from uvb.data.convert import Converted, Job, Progress, convert
from uvb.data.image_file import Contents, ImageFile
from uvb.data.image_set import ImageSet
from uvb.data.readers.arrays import read_arrays
from uvb.data.readers.choice import Choice, Labels, Wanted, choose, number_labels, order_of
from uvb.data.readers.decode import AS_IT_IS, Decoding
from uvb.data.readers.folder import read_folder
from uvb.data.readers.hub import fingerprint, load_hub, read_hub
from uvb.data.readers.listing import Listing, list_files
from uvb.data.readers.source import Source
from uvb.data.readers.tables import SUFFIXES, Columns, read_tables
from uvb.data.report import ReadReport, SkippedFiles, SplitRead
from uvb.data.survey import Survey, counts_of, doubts
from uvb.errors import UserError
from uvb.naming import dataset_stem

VERSION = 1  # of how files become images; another number converts everything anew


@dataclass(frozen=True)
class ReadOptions:
    """How one's own images are read.

    Attributes:
        image_column: the column of images in Parquet or Arrow; None: ``image``, ``img`` or ``pixel_values``.
        label_column: the column of labels; None: ``label`` or ``labels``, if there is one.
        split: ``("train=NAME", "test=NAME")``, to choose the splits by hand.
        decoding: what happens to each picture.
    """

    image_column: str | None = None
    label_column: str | None = None
    split: tuple[str, ...] = ()
    decoding: Decoding = AS_IT_IS

    @property
    def columns(self) -> Columns:
        return Columns(self.image_column, self.label_column)


def load_path(path: Path, options: ReadOptions, progress: Progress | None = None) -> ImageSet:
    """Images of a Parquet or Arrow file, a folder of shards, an ``.npz`` or ``.npy``, or a folder of pictures.

    The first time they are converted into the cache (`uvb.data.cache`), where every image is checked. After that, the files'
    names, sizes and times decide whether the converted set is still theirs. Training images are in a fixed random order;
    files without a test set are split nine to one (`uvb.data.readers.choice`).

    Raises:
        UserError: the path is none of these, or what it holds is damaged or unfit.
    """
    path = path.resolve()
    Wanted.parse(options.split)
    listing = list_files(path)
    key = listing.fingerprint(VERSION, options)
    name = dataset_stem(path.name) or "data"
    return _converted(key, name, options, lambda: _read(listing, options), str(path), progress,
                      lambda: list_files(path).fingerprint(VERSION, options) == key)  # fmt: skip


def load_from_hub(name: str, options: ReadOptions, download: bool = True, progress: Progress | None = None) -> ImageSet:
    """Images of ``hf:owner/name[:config]``.

    Raises:
        UserError: as `load_path`; or there is no such data set, or no way to get it.
    """
    splits = load_hub(name, download)
    key = Listing(Path(f"hf:{name}"), []).fingerprint(VERSION, options, *fingerprint(splits))
    return _converted(key, dataset_stem(f"hf:{name}"), options, lambda: read_hub(splits, options.columns, name), f"hf:{name}",
                      progress, lambda: True)  # fmt: skip


def _read(listing: Listing, options: ReadOptions) -> Source:
    """The source that the files are, by what they look like."""
    path = listing.root
    names = [file.path or path.name for file in listing.files]
    tables = any(name.lower().endswith(SUFFIXES) for name in names)
    if not tables and (options.image_column is not None or options.label_column is not None):
        asked = "label_column" if options.label_column is not None else "image_column"
        raise UserError(f"{asked} = {getattr(options, asked)!r}: only Parquet and Arrow have columns, and {path} is neither")
    if tables:
        return read_tables(listing, options.columns)
    if path.is_dir():
        wanted = Wanted.parse(options.split)
        return read_folder(listing, frozenset((*wanted.train, *wanted.test)))
    if path.suffix in (".npz", ".npy"):
        return read_arrays(path)
    raise UserError(
        f"{path}: give a .parquet or .npz file, a folder of Parquet shards, or a folder of images (or .arrow, .npy)"
    )


def _converted(
    key: str,
    name: str,
    options: ReadOptions,
    read: Callable[[], Source],
    where: str,
    progress: Progress | None,
    unchanged: Callable[[], bool],
) -> ImageSet:
    """The converted set of these files, made now if it is not in the cache."""
    if (found := cache.find(key, name)) is not None:
        return found
    source = read()
    choice = choose(source, Wanted.parse(options.split), where)
    order, train_images = order_of(choice)
    labels = number_labels(choice, source, order, train_images, where)
    pieces = [piece for split in (*choice.train, *choice.test) for piece in split.pieces]
    with cache.workplace(key) as folder:
        if (found := cache.find(key, name)) is not None:  # by the process that was waited for
            return found

        def file_of(shape: tuple[int, int, int]) -> ImageFile:
            counts = train_images, len(order) - train_images
            contents = Contents(name, shape, *counts, labels.train, labels.test, 255, labels.classes)
            return ImageFile(folder / "images.part", contents)

        made = convert(Job.of(pieces, order, options.decoding), file_of, folder, progress)
        if not unchanged():
            raise UserError(f"{where}: its files changed while they were read; run again once they rest")
        with cache.writing():
            checksum, survey = made.file.seal()
        report = _report(where, source, choice, labels, made, survey)
        cache.keep(key, checksum, made.file.path, report)
        cache.clear(folder)
    return ImageSet.load(cache.set_path(checksum), name, report)


def _report(where: str, source: Source, choice: Choice, labels: Labels, made: Converted, survey: Survey) -> ReadReport:
    held = made.file.contents
    warnings = [*source.warnings, *doubts(survey, held.test_images, held.levels)]
    if made.widened:
        warnings.append(f"{made.widened:,} of {held.images:,} images are grey and the others in colour: grey is read as colour")
    origins = [", ".join(f"{split.count:,} of {split.origin}" if len(splits) > 1 else split.origin for split in splits)
               for splits in (choice.train, choice.test)]  # fmt: skip
    if not choice.test:
        origins = [f"{origins[0]} (nine tenths, drawn)", f"{origins[0]} (a tenth, drawn: the files have no test set)"]
    splits = tuple(
        SplitRead(role, origin, images, counts_of(found, len(labels.classes)))
        for role, origin, images, found in zip(
            ("train", "test"), origins, (held.train_images, held.test_images), (labels.train, labels.test), strict=True
        )
    )
    skipped = tuple(SkippedFiles(item.why, item.count, item.example) for item in (*source.skipped, *choice.skipped))
    return ReadReport(where, source.kind, splits, held.shape, held.levels, survey.darkest, survey.brightest,
                      survey.mean / held.levels, labels.classes, skipped, tuple(dict.fromkeys(warnings)))  # fmt: skip
