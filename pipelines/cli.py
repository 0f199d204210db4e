"""Start and end every command: parse its options, and print an error as one clear line.

Exit codes: 0 (success), 1 (something failed), 2 (the user asked for something impossible), 130 (a person pressed Ctrl-C).
Import nothing slow here, so that `--help` is quick. Commands import torch and Ray after they have parsed their options.
"""

import argparse
import errno
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from pipelines.errors import CommandFailed, last_line, log_error
from pipelines.leaving import leave
from pipelines.streams import steady_streams
from uvb.errors import UserError

Config = TypeVar("Config")

# Advice if the system refuses a file. Its name, kind or rights are the cause, or the disk is full, or too many files are open.
OTHER, SPACE, FILES = "choose another file or folder", "free some space there", "raise the limit of open files, ulimit -n"
REFUSALS = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), OTHER),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO), OTHER),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), SPACE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), FILES),
}


def command(
    config: type[Config], run: Callable[[Config], int | None], *, resumes: bool = False, presets: bool = False
) -> NoReturn:
    """Parse the command line into `config`, call `run`, and exit with the code that it returns.

    Args:
        resumes: whether running the same command again continues its work. If so, say it when a person interrupts the command.
        presets: accept ``--config FILE``, a YAML file of options (`pipelines.study.presets`).
    """
    steady_streams()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        if sys.flags.optimize > 1:
            raise UserError("Python has removed all docstrings, but Ray needs them: unset PYTHONOPTIMIZE, or set it to 1")
        with refusals_of_the_system():
            leave(run(parsed(config, presets)) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(2)
    except CommandFailed as error:
        line, code = f"error: {error}", 1
    except KeyboardInterrupt:
        line, code = "\ninterrupted" + ("; run the same command again to continue" if resumes else ""), 130
    except Exception as error:
        line, code = f"unexpected error: {last_line(error)}; its traceback is in {log_error(error)}", 1
    print(line, file=sys.stderr)
    leave(code, at_once=True)


@contextmanager
def refusals_of_the_system() -> Iterator[None]:
    """If the system refuses to open or write a file that a user named, raise a `UserError` with the file and the reason.

    Code that can say more about the file raises a `UserError` itself.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and not error.filename:  # how `tempfile` says that it can write nowhere
            raise UserError(f"{error.strerror}; {SPACE}, or set TMPDIR to a folder that can be written") from error
        if error.errno not in REFUSALS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"{where}{error.strerror}; {REFUSALS[error.errno]}") from error


def parsed(config: type[Config], presets: bool = False) -> Config:
    """Make a `config` from the command line. Its options override those in the file of ``--config FILE``.

    Raises:
        UserError: an option is unknown or invalid. The message is tyro's, without the box that tyro draws around it.
    """
    said = io.StringIO()
    words, preset = without_preset(sys.argv[1:]) if presets else (sys.argv[1:], None)
    default: Any = tyro.MISSING_NONPROP
    if preset is not None:
        from pipelines.study.presets import read_preset

        default = read_preset(preset, config)
    try:
        with redirect_stderr(said):
            return tyro.cli(config, args=words, default=default)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        lines = [line.strip("│| ") for line in said.getvalue().splitlines()]
        parts = re.split(r"[-+─╭╮╰╯]{20,}", "\n".join(lines[1:]))  # drop the box's title and border lines
        raise UserError("; ".join(" ".join(part.split()).rstrip(".") for part in parts if part.strip())) from None


def without_preset(words: list[str]) -> tuple[list[str], Path | None]:
    """Take ``--config FILE`` out of a command line. Return the other words, and the file; None if there is none.

    Raises:
        UserError: ``--config`` has no file, or is given more than once.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", nargs="?", const="", default=[])
    found, rest = parser.parse_known_args(words)
    if len(found.config) > 1 or "" in found.config:
        raise UserError("--config takes one YAML file, e.g. --config outputs/digits/study.yaml")
    return rest, Path(found.config[0]) if found.config else None
