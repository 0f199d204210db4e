"""The one way a command starts and ends: typed options in, and where something is wrong one clear line out.

Exit codes: 0, 1 where something failed, 2 where the user asked for what cannot be, 130 where a person interrupted it.
Nothing heavy is imported here, so that `--help` is quick; commands import torch and Ray after their options are parsed.
"""

import io
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import NoReturn, TypeVar

import tyro

from pipelines.errors import CommandFailed, last_line, log_error
from pipelines.leaving import leave
from pipelines.streams import steady_streams
from uvb.errors import UserError

Config = TypeVar("Config")


def command(config: type[Config], run: Callable[[Config], int | None], *, resumes: bool = False) -> NoReturn:
    """Parse the command line into `config`, call `run`, and exit with what it returns.

    Args:
        resumes: tell a person who interrupts it that it goes on when run again.
    """
    steady_streams()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        leave(run(parsed(config)) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(2)
    except CommandFailed as error:
        line, code = f"error: {error}", 1
    except KeyboardInterrupt:
        line, code = "\ninterrupted" + "; the same command goes on from here" * resumes, 130
    except Exception as error:
        line, code = f"error: nobody foresaw this one ({last_line(error)}); its traceback is in {log_error(error)}", 1
    print(line, file=sys.stderr)
    leave(code, at_once=True)


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
