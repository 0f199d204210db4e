"""The one way a command starts: typed configuration in, one clear line and exit code 2 where the user went wrong."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from uvb.errors import UserError

Config = TypeVar("Config")


def command(config: type[Config], run: Callable[[Config], int | None]) -> None:
    """Parse the command line into `config` and call `run`; exits with its return value, or 2 after a `UserError`."""
    try:
        sys.exit(run(tyro.cli(config)) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # other threads may be in the midst of something (see `pipelines.resources.leave_ray`)
