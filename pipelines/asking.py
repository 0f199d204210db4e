"""Ask an address something in a thread, so that an address that is silent cannot hold up the command."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pipelines.leaving import stubborn

ANSWER_SECONDS = 8.0  # until an address counts as silent; a command ends within 10 s, and begins to ask after 1 s
# But wait at least so long after the answer is needed, and longer if the machine is so loaded that it took long to get there.
LEAST_SECONDS, LEAST_SHARE = 2.5, 0.3

T = TypeVar("T")


class Silent(Exception):
    """An address has not answered.

    Attributes:
        seconds: how long it was waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {round(seconds, 1):g} s")
        self.seconds = seconds


def patience(seconds: float, passed: float) -> float:
    """How long to wait for an answer that is needed `passed` seconds after the question, and may take `seconds`."""
    return max(seconds - passed, min(LEAST_SECONDS, seconds), LEAST_SHARE * passed)


class Question(Generic[T]):
    """A call of `ask` that begins at once, in a thread of its own. Import what `ask` needs before: imports may not race.

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
        """What `ask` returns.

        Raises:
            Silent: it did not return in time.
            BaseException: what `ask` raised.
        """
        self._thread.join(patience(self.seconds, time.monotonic() - self.began))
        if self._answer:
            return self._answer[0]
        if self._error is None:
            raise Silent(time.monotonic() - self.began)
        raise self._error
