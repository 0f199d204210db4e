"""Read a study's images, with a progress bar, and say what was found."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.study.config import DataOptions
from pipelines.study.screen import Screen
from uvb.data import ImageSet, load_dataset
from uvb.data.convert import Progress

BAR = 24  # the length of the progress bar in characters


def read_images(options: DataOptions, screen: Screen, held_out: bool = False) -> ImageSet:
    """Read the images of a study, and print on the screen what was read.

    Args:
        held_out: train on four fifths of the training images and judge by the last fifth, so that the test set is not used.

    Raises:
        UserError: the images cannot be read, or cannot be trained on.
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
    """Yield a function that draws a progress bar. It is called only if images are converted."""

    def show(done: int, total: int) -> None:
        full = BAR * done // total
        screen.note(f"converting images [{'#' * full}{'.' * (BAR - full)}] {done:,} of {total:,}")

    try:
        yield show
    finally:
        screen.clear()
