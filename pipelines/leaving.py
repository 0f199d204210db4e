"""The end of a process: orderly, or at once where a thread is still in the midst of something."""

import os
import sys
import threading
from typing import NoReturn

_stubborn: list[threading.Thread] = []


def stubborn(thread: threading.Thread) -> threading.Thread:
    """Note that the process must not wait for `thread` when it ends, nor take anything from under it; returns it."""
    _stubborn.append(thread)
    return thread


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """Exit; at once where asked to, or where a stubborn thread is at work."""
    if at_once or any(thread.is_alive() for thread in _stubborn):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
