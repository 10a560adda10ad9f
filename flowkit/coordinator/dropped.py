"""Messages that nobody can read and that are worth no dead letter: log lines, announcements."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flowkit.errors import Unreadable

logger = logging.getLogger(__name__)
EVERY = 60.0  # seconds from one line about them to the next: a stranger can send thousands


class Dropped:
    """Counts what is dropped, and logs it: the first one at once, then a line a minute at most.

    Args:
        what: a noun, such as ``announcement``.
        action: the word for it in the log.
        clock: seconds, of any beginning.
    """

    def __init__(self, what: str, action: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._action, self._clock = what, action, clock
        self._next = float("-inf")
        self.count = 0  # since this process began

    def add(self, error: Unreadable, where: str = "") -> None:
        """One more is dropped.

        Args:
            error: why it cannot be read.
            where: it was, such as ``at offset 17``.
        """
        self.count += 1
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY
        logger.warning("%s %scannot be read and is dropped, %s so far: %s", self._what, where and f"{where} ",
                       f"{self.count:,}", error, extra={"action": self._action, "count": self.count})  # fmt: skip
