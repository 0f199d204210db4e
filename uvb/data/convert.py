"""Converting a data set into one file of uint8 rows: in parallel, within bounded memory, and resumable.

Pieces of the set are decoded by several processes, each of which writes its images to their rows. A journal names the
pieces that are on the disk; a conversion that was interrupted goes on behind them.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from uvb.atomic import replacing
from uvb.data.cache import require_space, writing
from uvb.data.image_file import ImageFile
from uvb.data.readers.decode import Decoding, First
from uvb.data.readers.source import NeedsChannels, Piece, Target, is_grey
from uvb.errors import UserError
from uvb.machine import usable_cpus

Progress = Callable[[int, int], None]
"""Told now and then: images converted, images in all."""

FEW = 4096  # images that one process decodes while others would be starting
SYNC_SECONDS = 2.0  # what was written in this time may have to be decoded again


class Converted(NamedTuple):
    """A file whose images are all written, and how many of them were grey among colours."""

    file: ImageFile
    widened: int


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to know: what to read, and to which rows of the file each piece goes."""

    pieces: Sequence[Piece]
    rows: NDArray[np.int64]  # (N,): the row of each image, in the order of the pieces
    starts: NDArray[np.int64]  # (pieces,): the first of `rows` of each piece
    decoding: Decoding

    @staticmethod
    def of(pieces: Sequence[Piece], order: NDArray[np.int64], decoding: Decoding) -> "Job":
        """The job that puts image ``order[k]`` into row k."""
        rows = np.empty_like(order)
        rows[order] = np.arange(len(order))
        counts = [piece.count for piece in pieces]
        return Job(pieces, rows, np.cumsum([0, *counts[:-1]]), decoding)

    def run(self, piece: int, file: ImageFile, target: Target) -> int:
        """Decode a piece and write it; returns how many of its images were grey among colours."""
        writer, at, widened = file.writer(), int(self.starts[piece]), 0
        try:
            for block, grey in self.pieces[piece].blocks(self.decoding, target):
                writer.write(block, self.rows[at : at + len(block)])
                at, widened = at + len(block), widened + grey
        finally:
            writer.close()
        return widened


def convert(
    job: Job, file_of: Callable[[tuple[int, int, int]], ImageFile], folder: Path, progress: Progress | None
) -> Converted:
    """Write all images of a job to a file in `folder`.

    The first image decides the size. The set is in colour if one image is, and else grey if one is grey by its format.

    Args:
        file_of: the file for images of a (C, H, W).
        folder: where the journal is kept, too; what an interrupted conversion left there is used.

    Raises:
        UserError: an image is damaged or does not fit; the line names the first such image.
    """
    block, _ = next(job.pieces[0].blocks(job.decoding, None))
    channels, height, width = block.shape[1:]
    settled = channels != 3 or not is_grey(block[0])
    while True:
        first = First(job.pieces[0].where(0), (channels, height, width))
        file = file_of(first.shape)
        try:
            return Converted(file, _convert(job, file, Target(first, settled), folder, progress))
        except NeedsChannels as needs:
            settled = needs.channels == 3  # an image in colour was seen; else a grey one, and a colour may come
            channels = needs.channels


def _convert(job: Job, file: ImageFile, target: Target, folder: Path, progress: Progress | None) -> int:
    journal = Journal(folder, file, target)
    left = [piece for piece in range(len(job.pieces)) if piece not in journal.done]
    total = len(job.rows)
    done = total - sum(job.pieces[piece].count for piece in left)
    widened = sum(journal.done.values())
    if not journal.done:
        with writing():
            require_space(folder, total * file.contents.row_bytes)
            file.create()
    with journal:
        for piece, grey in _results(job, left, file, target):
            journal.add(piece, grey)
            done, widened = done + job.pieces[piece].count, widened + grey
            if progress:
                progress(done, total)
    return widened


class Journal:
    """Which pieces are on the disk, a line each, of a file that is being written; and how many of their images were widened."""

    def __init__(self, folder: Path, file: ImageFile, target: Target) -> None:
        self._path, self._file = folder / "journal", file
        self.done: dict[int, int] = {}
        about = json.dumps([file.header().decode("utf-8", "replace"), target.settled])
        if file.path.exists() and (folder / "about.json").exists() and (folder / "about.json").read_text() == about:
            lines = [line.split() for line in self._path.read_text().splitlines()] if self._path.exists() else []
            self.done = {int(line[0]): int(line[1]) for line in lines if len(line) == 3 and line[2] == "."}
        else:
            self._path.unlink(missing_ok=True)
            with replacing(folder / "about.json") as temporary:
                temporary.write_text(about)
        self._waiting: dict[int, int] = {}
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        self._writer = self._file.writer()
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, piece: int, widened: int) -> None:
        """Note a piece that was written; it is named in the journal once its bytes are on the disk."""
        self._waiting[piece] = widened
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._flush()

    def _flush(self) -> None:
        with writing():
            self._writer.sync()
            with self._path.open("a") as journal:
                journal.writelines(f"{piece} {widened} .\n" for piece, widened in self._waiting.items())
        self.done |= self._waiting
        self._waiting, self._synced = {}, time.monotonic()


def _results(job: Job, left: Sequence[int], file: ImageFile, target: Target) -> Iterator[tuple[int, int]]:
    """Pieces as they are written, in order, each with how many images were widened."""
    processes = min(usable_cpus(), len(left))
    if processes < 2 or sum(job.pieces[piece].count for piece in left) < FEW:
        for piece in left:
            with writing():
                widened = job.run(piece, file, target)
            yield piece, widened
        return
    # a fork shares the job's memory; where forks are not usual, such as on macOS, it is copied
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(processes, context, _begin, (job, file, target, os.getpid()))
    try:
        for piece, outcome in zip(left, pool.map(_run, left), strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            yield piece, outcome
    except BrokenProcessPool as error:
        raise UserError(
            "a process that converts images was killed, probably for want of memory; the same command goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_mine: tuple[Job, ImageFile, Target]  # of a process of the pool


def _begin(job: Job, file: ImageFile, target: Target, parent: int) -> None:
    """Set up a process of the pool. Ctrl-C is its parent's, and it ends when the parent does."""
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
    """What a piece gave. A fault is returned and not raised, so that the parent sees it without the process's traceback."""
    job, file, target = _mine
    try:
        with writing():
            return job.run(piece, file, target)
    except (UserError, NeedsChannels) as fault:
        return fault
