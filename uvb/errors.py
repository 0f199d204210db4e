"""The one exception for what a user can cause and can mend."""


class UserError(Exception):
    """A mistake of the user's, told in one line: what was wrong, what is allowed, what to do.

    Command lines print the line and exit with code 2; nothing else is caught that way.
    """


class Diverged(UserError):
    """A training whose losses are no longer finite: a result of its recipe."""
