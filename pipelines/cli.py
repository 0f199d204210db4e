"""The one way a command starts: typed configuration in, one clear line and exit code 2 where the user went wrong."""

import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import NoReturn, TypeVar

import tyro

from uvb.errors import UserError

Config = TypeVar("Config")
TUNE_THREAD = "tune"  # the name of the thread in which Ray Tune runs


def command(config: type[Config], run: Callable[[Config], int | None], *, resumes: bool = False) -> None:
    """Parse the command line into `config` and call `run`; exits with its return value, or 2 after a `UserError`.

    With `resumes` a person who interrupts it is told that it goes on when run again.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        leave(run(parsed(config)) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(2)
    except KeyboardInterrupt:
        print("\ninterrupted" + "; the same command goes on from here" * resumes, file=sys.stderr)
        leave(130, at_once=True)


def parsed(config: type[Config]) -> Config:
    """`config` as the command line says.

    Raises:
        UserError: it does not fit; in tyro's words, of whose box this makes a line.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(config)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        lines = [line.strip("│| ") for line in said.getvalue().splitlines()]
        parts = re.split(r"[-+─╭╮╰╯]{20,}", "\n".join(lines[1:]))  # without the box's title, at its rules
        raise UserError("; ".join(" ".join(part.split()).rstrip(".") for part in parts if part.strip())) from None


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """Exit; at once where another thread may be in the midst of something (see `pipelines.cluster.layout.leave_ray`)."""
    if at_once or any(thread.name == TUNE_THREAD for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
