"""Data sets by name or path."""

import inspect
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from uvb.data.convert import Progress
from uvb.data.image_set import ImageSet
from uvb.data.readers.own import ReadOptions, load_from_hub, load_path
from uvb.data.report import ReadReport, doubts, splits_read
from uvb.data.resized import resized
from uvb.data.survey import Survey
from uvb.errors import UserError
from uvb.registry import Registry

_Loader = TypeVar("_Loader", bound=Callable[..., ImageSet])
DATASETS: Registry[Callable[..., ImageSet]] = Registry("data set", "uvb.datasets")
dataset_names = DATASETS.names
"""All names that `load_dataset` knows, sorted."""
BLOCK = 4096  # images that a survey reads at once


def register_dataset(name: str) -> Callable[[_Loader], _Loader]:
    """A decorator that makes ``fn(data_dir: Path) -> ImageSet`` the loader of `name`.

    A loader that uses the network also takes a keyword ``download: bool``. If it is False, the loader must stay offline.

    Another package needs no decorator. It declares its loader as an entry point in the group ``uvb.datasets``. The entry point
    has the name of the data set.

    Raises:
        UserError: another function already has the name.
    """

    def register(loader: _Loader) -> _Loader:
        taken = DATASETS.known.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (loader.__module__, loader.__qualname__):
            raise UserError(f"data set name {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another")
        DATASETS.add(name, loader)
        return loader

    return register


def load_dataset(
    name_or_path: str | os.PathLike[str],
    data_dir: str | Path = "data",
    *,
    download: bool = True,
    label_column: str | None = None,
    options: ReadOptions | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Load images by a name, from the Hugging Face hub, or from a path. ``images.report`` says what was read.

    Args:
        name_or_path: e.g. ``"digits"``, ``"hf:owner/name"``, or a path such as ``"./faces"``. Known names go before paths, but
            a `Path` is always a path.
        data_dir: the folder of the files of named data sets.
        download: False forbids the network.
        label_column: short for ``options=ReadOptions(label_column=...)``.
        options: how to read images from a path or from the hub (`uvb.data.readers.own.ReadOptions`).
        progress: a function that is called while images from a path or from the hub are converted, at their first load.
            It takes the number of converted images and the number of all images.

    Raises:
        UserError: there is neither such a name nor such a path, or the files are absent, damaged or unfit.
    """
    if options and label_column:
        raise UserError("load_dataset: label_column and options are both given; put the label column into options")
    options = options or ReadOptions(label_column=label_column)
    name, is_path = os.fspath(name_or_path), isinstance(name_or_path, os.PathLike)
    if name.startswith("hf:") and not is_path:
        return load_from_hub(name.removeprefix("hf:"), options, download, progress)
    loader = None if is_path else DATASETS.known.get(name) or _plugin(name)
    if loader is None:
        path = Path(os.path.expanduser(name))
        if not name or not os.path.exists(path):
            raise UserError(
                f"no data set {name!r}: neither a known name ({', '.join(dataset_names())}) nor an existing path to "
                "a Parquet file or folder, an .npz, or a folder of images; a set of the hub is hf:owner/name"
            )
        return load_path(path, options, progress)
    side = options.decoding.resize  # the only option that a named data set takes
    options = replace(options, decoding=replace(options.decoding, resize=0))
    if options != ReadOptions():
        changed = ", ".join(f.name for f in fields(options) if getattr(options, f.name) != getattr(ReadOptions(), f.name))
        raise UserError(f"{changed}: only for your own images; data set {name!r} has labels and splits of its own")
    takes_download = "download" in inspect.signature(loader).parameters
    images = loader(Path(data_dir), **({"download": download} if takes_download else {}))
    if not isinstance(images, ImageSet):
        raise UserError(f"data set {name!r}: its loader returned {type(images).__name__}, not an ImageSet")
    if side:
        images = resized(images, side)
    return images if images.report else _described(images)


def _described(images: ImageSet) -> ImageSet:
    """The same set with a report of its contents."""
    survey, sets = Survey(), (images.train, images.test)
    for pixels, train in zip(sets, (True, False), strict=True):
        for block in pixels.split(BLOCK):
            survey.add(block.numpy(), train=train)
    labels = [None if found is None else found.numpy() for found in (images.train_labels, images.test_labels)]
    largest = max((int(found.max()) for found in labels if found is not None), default=-1)
    classes = images.classes or tuple(map(str, range(largest + 1)))
    splits = splits_read(["the data set's own split"] * 2, [len(pixels) for pixels in sets], labels, len(classes))
    report = ReadReport(
        images.name, "a data set by name", splits, images.shape, images.levels, survey.darkest, survey.brightest,
        survey.mean / images.levels, classes, (), tuple(doubts(survey, len(images.test), images.levels)),
    )  # fmt: skip
    return replace(images, classes=classes, report=report, brightest=survey.brightest)


def _plugin(name: str) -> Callable[..., ImageSet] | None:
    """The loader of a plug-in, or None. The entry point names the loader itself, or a module that registers the loader."""
    found = DATASETS.load_plugin(name)
    return found if found is None or callable(found) else DATASETS.get(name)
