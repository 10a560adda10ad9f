"""The one line on stderr that changes in place while one waits."""

from __future__ import annotations

import sys
from time import monotonic

from flowkit.cli.render.output import clean, duration, message

_CLEAR = "\r\x1b[2K"


class Progress:
    """A line that stays the last one on a terminal; elsewhere it is not shown at all.

    Args:
        what: what is waited for.
    """

    def __init__(self, what: str) -> None:
        self._what, self._since, self._detail = what, monotonic(), ""
        self._shown = sys.stderr.isatty()

    @property
    def shown(self) -> bool:
        """Whether there is a terminal to show it on."""
        return self._shown

    @property
    def seconds(self) -> float:
        """Since it began."""
        return monotonic() - self._since

    def update(self, detail: str) -> None:
        """Show this beside what is waited for and how long already."""
        self._detail = detail
        self._draw()

    def above(self, line: str) -> None:
        """Print a line above it."""
        message((_CLEAR if self._shown else "") + line + "\n")
        self._draw()

    def end(self) -> None:
        """Take it away."""
        if self._shown:
            message(_CLEAR)

    def _draw(self) -> None:
        if self._shown:
            parts = [self._what, self._detail, duration(self.seconds)]
            message(_CLEAR + clean(" · ".join(part for part in parts if part), sys.stderr))
