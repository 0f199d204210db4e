"""Make stdout and stderr safe: mask secrets, spell out letters that the encoding lacks, and survive a closed stream."""

import codecs
import os
import sys
from typing import Any, TextIO

from pipelines.files.masking import masked

SPELT = {"σ": "sigma", "ε": "eps", "δ": "delta", "±": "+-", "×": "x", "²": "^2", "→": "->", "≤": "<=", "≥": ">=", "…": "..."}


def spell(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: return what stands for the letter that the encoding lacks, and where to continue."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return SPELT.get(error.object[error.start], "?"), error.start + 1


codecs.register_error("spelt", spell)


class Steady:
    """A text stream that masks secrets, spells letters that its encoding lacks, and discards all output once it is closed."""

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
        """`text` in which each letter that the encoding lacks is spelt in ASCII, or replaced by "?"."""
        encoding = self.stream.encoding or "ascii"
        return text.encode(encoding, "spelt").decode(encoding)

    def silence(self) -> None:
        """Discard all later output, because nobody reads it: a reader such as `head` has ended, or the terminal was closed."""
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
        except OSError:  # a file opened later would get this number, and with it the screen's output
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)  # pass on each line at once, also into a pipe
        if not isinstance(stream, Steady):
            setattr(sys, name, Steady(stream or open(os.devnull, "w")))  # noqa: SIM115
