"""Make stdout and stderr safe: mask secrets, spell letters that the encoding lacks, and survive a closed stream."""

import codecs
import os
import sys
from typing import Any, TextIO

from pipelines.files.masking import masked

SPELT = {"σ": "sigma", "ε": "eps", "δ": "delta", "±": "+-", "×": "x", "²": "^2", "→": "->", "≤": "<=", "≥": ">=", "…": "..."}


def spell(error: UnicodeError) -> tuple[str, int]:
    """Return the spelling of a letter that the encoding lacks, or "?", and the place where encoding continues."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return SPELT.get(error.object[error.start], "?"), error.start + 1


codecs.register_error("spelt", spell)


class Steady:
    """A text stream that masks secrets, spells letters that its encoding lacks, and goes silent when its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            self.stream.write(self.fitting(masked(text)))
        except (OSError, ValueError):
            self.silence()
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self.silence()

    def fitting(self, text: str) -> str:
        """`text` with letters that the encoding lacks spelt in ASCII, or replaced by "?"."""
        encoding = self.stream.encoding or "ascii"
        return text.encode(encoding, "spelt").decode(encoding)

    def silence(self) -> None:
        """Discard all later output. Its reader has ended, as `head` does early, or the terminal was closed."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.stream.fileno())
        except (OSError, ValueError):
            self.stream = open(os.devnull, "w")  # noqa: SIM115  # stays open as long as the command
        finally:
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def steady_streams() -> None:
    """Make stdin, stdout and stderr safe to use, even if the shell closed them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # else a file opened later gets this number, and receives what is meant for the screen
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)  # a pipe, too, shows each line at once
        if not isinstance(stream, Steady):
            setattr(sys, name, Steady(stream or open(os.devnull, "w")))  # noqa: SIM115
