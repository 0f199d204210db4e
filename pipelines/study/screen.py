"""The screen of a running study: lines that stay, and a live view below them."""

import time
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

LINE_SECONDS = 10.0  # the least time between two lines of progress if there is no terminal


@dataclass
class Screen:
    """Prints lines above a live view on a terminal, and plain lines elsewhere."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    live: Live | None = None
    last_line: float = 0.0  # when `show` last printed a line
    shown: str = ""  # the line that it printed

    def say(self, line: str) -> None:
        """Print one line that stays."""
        self.console.print(Text(line), soft_wrap=True)

    def show(self, view: Group | Text, line: str) -> None:
        """Show `view` live. Without a terminal, print `line` instead: every few seconds, and only if it has changed."""
        if self.console.is_terminal:
            if self.live is None:
                self.live = Live(console=self.console, transient=True, auto_refresh=False)
                self.live.start()
            self.live.update(view, refresh=True)
        elif line != self.shown and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line, self.shown = time.monotonic(), line
            self.say(line)

    def note(self, line: str) -> None:
        """Show `line` by `show`, as a view of one line."""
        self.show(Text(line), line)

    def clear(self) -> None:
        """Remove the live view."""
        if self.live is not None:
            self.live.stop()
            self.live = None
