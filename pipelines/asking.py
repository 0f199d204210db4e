"""Ask an address (a store, a cluster, or a server) in a thread, so that a silent one cannot hold up the command."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pipelines.leaving import stubborn

ANSWER_SECONDS = 8.0  # a slower address counts as silent. A command asks after 1 s, and must end within 10 s
# When the answer is needed, wait at least 2.5 s, and at least 0.3 times the time since the question: a busy machine is slow.
LEAST_SECONDS, LEAST_SHARE = 2.5, 0.3

T = TypeVar("T")


class Silent(Exception):
    """An address has not answered.

    Attributes:
        seconds: how long we waited.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {round(seconds, 1):g} s")
        self.seconds = seconds


def patience(seconds: float, passed: float) -> float:
    """How many more seconds to wait for an answer that may take `seconds`. The question was asked `passed` seconds ago."""
    return max(seconds - passed, min(LEAST_SECONDS, seconds), LEAST_SHARE * passed)


class Question(Generic[T]):
    """A call of `ask`, which begins at once in a new thread.

    First import what `ask` needs, because two threads must not import the same module at the same time.

    Args:
        seconds: how long `ask` may take; None: `ANSWER_SECONDS`.
    """

    def __init__(self, ask: Callable[[], T], seconds: float | None = None) -> None:
        self.seconds, self.began = ANSWER_SECONDS if seconds is None else seconds, time.monotonic()
        self._answer: list[T] = []
        self._error: BaseException | None = None

        def work() -> None:
            try:
                self._answer.append(ask())
            except BaseException as error:  # each kind of address has its own exceptions
                self._error = error

        self._thread = stubborn(threading.Thread(target=work, daemon=True))  # a silent address blocks it for minutes
        self._thread.start()

    def answer(self) -> T:
        """Wait for `ask`, and return what it returns.

        Raises:
            Silent: `ask` did not return in time.
            BaseException: what `ask` raised.
        """
        self._thread.join(patience(self.seconds, time.monotonic() - self.began))
        if self._answer:
            return self._answer[0]
        if self._error is None:
            raise Silent(time.monotonic() - self.began)
        raise self._error
