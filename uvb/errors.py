"""The exception for mistakes that a user can make and correct, and functions that put any error on one line."""

from collections.abc import Callable


class UserError(Exception):
    """A user's mistake. Its message is one line: what was wrong, what is allowed, what to do.

    Commands print the line and exit with code 2.
    """


class Diverged(UserError):
    """The losses of a training are not finite. The cause is the recipe or the model."""


def one_line(error: BaseException) -> str:
    """The message of `error` on one line, or the error's type if the message is empty. At most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's type if the message is empty. At most 200 characters."""
    return next((" ".join(line.split()) for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def with_type(error: BaseException, line: Callable[[BaseException], str] = one_line) -> str:
    """The error's type and the message that `line` makes of it: ``ValueError: too long``. Without a message the type alone."""
    return type(error).__name__ + (f": {line(error)}" if str(error).strip() else "")
