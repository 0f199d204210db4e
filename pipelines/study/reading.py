"""Reading a study's images: what was asked for, a progress bar, and a word on what was found."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.study.config import DataOptions
from pipelines.study.screen import Screen
from uvb.data import ImageSet, load_dataset
from uvb.data.convert import Progress

BAR = 24  # characters


def read_images(options: DataOptions, screen: Screen, held_out: bool = False) -> ImageSet:
    """The images that a study is about. What was read is said.

    Args:
        held_out: train on four fifths of the training images and judge by the fifth, so that the test set chooses nothing.

    Raises:
        UserError: they cannot be read, or are unfit.
    """
    with conversion(screen) as progress:
        images = load_dataset(options.dataset, options.data_dir, options=options.reading, progress=progress)
    if held_out:
        images = images.validation()
    for line in images.report.lines() if images.report else []:
        screen.say(line)
    return images


@contextmanager
def conversion(screen: Screen) -> Iterator[Progress]:
    """A progress bar for images that are converted; none where they are in the cache already."""

    def show(done: int, total: int) -> None:
        full = BAR * done // total
        screen.note(f"converting images [{'#' * full}{'.' * (BAR - full)}] {done:,} of {total:,}")

    try:
        yield show
    finally:
        screen.clear()
