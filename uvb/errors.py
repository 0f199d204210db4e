"""The exception for mistakes that a user can make and correct."""


class UserError(Exception):
    """A user's mistake. Its message is one line: what was wrong, what is allowed, what to do.

    Commands print the line and exit with code 2.
    """


class Diverged(UserError):
    """The losses of a training are not finite. The cause is the recipe or the model."""


def one_line(error: BaseException) -> str:
    """The message of `error` on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300]
