"""Exit the process, without waiting for a thread that cannot be ended."""

import os
import sys
import threading
from typing import NoReturn

_stubborn: list[threading.Thread] = []


def stubborn(thread: threading.Thread) -> threading.Thread:
    """Note that `thread` cannot be ended, so that `leave` does not wait for it; return it."""
    _stubborn.append(thread)
    return thread


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """Exit the process. If `at_once`, or if a stubborn thread still runs, skip the clean-up and wait for no thread."""
    if at_once or any(thread.is_alive() for thread in _stubborn):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
