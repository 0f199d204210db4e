"""Convert a data set into one file of uint8 images, in parallel and with bounded memory. Conversions can be resumed.

Several processes decode pieces of the set, and write each image to its row of the file. A journal lists the pieces that are
on the disk. An interrupted conversion continues with the other pieces.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uvb.atomic import replacing
from uvb.data.cache import require_space, writing
from uvb.data.image_file import ImageFile
from uvb.data.readers.decode import Decoding, Target
from uvb.data.readers.source import NeedsChannels, Piece, is_grey
from uvb.errors import UserError
from uvb.machine import usable_cpus

Progress = Callable[[int, int], None]
"""A function that is called now and then with two numbers: the images converted so far, and all images."""

FEW = 4096  # if there are fewer images, one process decodes them all, because starting more would take longer
SYNC_SECONDS = 2.0  # seconds between flushes to the disk; an interruption loses about this much work


@dataclass(frozen=True)
class Job:
    """What to read, and to which row of the file each image is written."""

    pieces: Sequence[Piece]
    rows: NDArray[np.int64]  # (N,): the row of each image; images are in the order of the pieces
    starts: NDArray[np.int64]  # (pieces,): the index in `rows` of each piece's first image
    decoding: Decoding

    @staticmethod
    def of(pieces: Sequence[Piece], order: NDArray[np.int64], decoding: Decoding) -> "Job":
        """The job that writes image ``order[k]`` to row k."""
        rows = np.empty_like(order)
        rows[order] = np.arange(len(order))
        counts = [piece.count for piece in pieces]
        return Job(pieces, rows, np.cumsum([0, *counts[:-1]]), decoding)

    def run(self, piece: int, file: ImageFile, target: Target) -> int:
        """Decode a piece and write it. Return how many of its grey images were converted to colour."""
        at, widened = int(self.starts[piece]), 0
        for block, grey in self.pieces[piece].blocks(self.decoding, target):
            file.write(block, self.rows[at : at + len(block)])
            at, widened = at + len(block), widened + grey
        return widened


def convert(
    job: Job, file_of: Callable[[tuple[int, int, int]], ImageFile], folder: Path, progress: Progress | None
) -> tuple[ImageFile, int]:
    """Write all images of a job to a file in `folder`. Return the file, and how many grey images were converted to colour.

    All images must have the size of the first. The set is in colour if any image is in colour, and grey otherwise.

    Args:
        file_of: a function that returns the file for images of shape (C, H, W).
        folder: the working folder. It may hold the journal and the images of an interrupted conversion.

    Raises:
        UserError: an image is damaged or does not fit. The message names the first such image.
    """
    block, _ = next(job.pieces[0].blocks(job.decoding, None))
    channels, height, width = block.shape[1:]
    settled = channels != 3 or not is_grey(block[0])  # otherwise C = 3 is a guess (see `Target`)
    while True:
        target = Target(job.pieces[0].where(0), (channels, height, width), settled)
        file = file_of(target.shape)
        try:
            return file, _convert(job, file, target, folder, progress)
        except NeedsChannels as needs:
            settled = needs.channels == 3  # C = 3 is final, because an image in colour was found
            channels = needs.channels


def _convert(job: Job, file: ImageFile, target: Target, folder: Path, progress: Progress | None) -> int:
    """Write the images that are not on the disk yet. Return how many of all images were converted from grey to colour."""
    journal = Journal(folder, file, target)
    left = [piece for piece in range(len(job.pieces)) if piece not in journal.done]
    total = len(job.rows)
    done = total - sum(job.pieces[piece].count for piece in left)
    if not journal.done:
        with writing():
            require_space(folder, total * file.contents.row_bytes)
            file.create()
    try:
        with closing(_results(job, left, file, target)) as results:  # closing ends the processes, even after an error
            for piece, grey in results:
                journal.add(piece, grey)
                done += job.pieces[piece].count
                if progress:
                    progress(done, total)
    finally:
        journal.sync()
    return sum(journal.done.values())


class Journal:
    """A file with one line for each piece on the disk: its number, and how many of its images were converted to colour."""

    def __init__(self, folder: Path, file: ImageFile, target: Target) -> None:
        self._path, self._file = folder / "journal", file
        about = json.dumps([file.header().decode("utf-8", "replace"), target.settled])
        lines = self._path.read_text().splitlines() if self._path.exists() and file.path.exists() else []
        if lines[:1] != [about]:  # there is no journal, or it belongs to another target
            lines = [about]
            with replacing(self._path) as temporary:
                temporary.write_text(f"{about}\n")
        noted = [line.split() for line in lines[1:]]
        self.done = {int(words[0]): int(words[1]) for words in noted if words[2:] == ["."]}  # a half-written line has no dot
        self._waiting: dict[int, int] = {}
        self._synced = time.monotonic()

    def add(self, piece: int, widened: int) -> None:
        """Note a piece that was written. `sync` adds it to the journal, after its bytes are on the disk."""
        self._waiting[piece] = widened
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Flush the images to the disk. Then write the journal's lines for their pieces."""
        with writing():
            self._file.sync()
            with self._path.open("a") as journal:
                journal.writelines(f"{piece} {widened} .\n" for piece, widened in self._waiting.items())
        self.done |= self._waiting
        self._waiting, self._synced = {}, time.monotonic()


def _results(job: Job, left: Sequence[int], file: ImageFile, target: Target) -> Generator[tuple[int, int]]:
    """Write the pieces in `left`. Yield in order each piece's number, and how many of its images were converted to colour."""
    processes = min(usable_cpus(), len(left))
    if processes < 2 or sum(job.pieces[piece].count for piece in left) < FEW:
        for piece in left:
            with writing():
                widened = job.run(piece, file, target)
            yield piece, widened
        return
    # A forked process shares the memory of the job. A spawned process, as on macOS, gets a copy.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(processes, context, _begin, (job, file, target, os.getpid()))
    try:
        for piece, outcome in zip(left, pool.map(_run, left), strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            yield piece, outcome
    except BrokenProcessPool as error:
        raise UserError(
            "a process that converts images was killed, probably because memory ran out; run the same command again to continue"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_mine: tuple[Job, ImageFile, Target]  # set in each process of the pool


def _begin(job: Job, file: ImageFile, target: Target, parent: int) -> None:
    """Set up a process of the pool. It ignores Ctrl-C, which its parent handles, and ends when the parent ends."""
    global _mine
    _mine = job, file, target
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run(piece: int) -> int | Exception:
    """Write a piece. Return an error instead of raising it, so that the parent raises it without this process's traceback."""
    job, file, target = _mine
    try:
        with writing():
            return job.run(piece, file, target)
    except (UserError, NeedsChannels) as fault:
        return fault
