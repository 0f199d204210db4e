"""The exception for mistakes that a user can make and correct."""


class UserError(Exception):
    """A user's mistake, told in one line: what was wrong, what is allowed, what to do.

    Commands print the line and exit with code 2. They catch nothing else that way.
    """


class Diverged(UserError):
    """A training whose losses are no longer finite. This is a result of its recipe."""


def one_line(error: BaseException) -> str:
    """The message of `error` on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300]
