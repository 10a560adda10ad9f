"""The timeout of one attempt."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Timeout:
    """Cancels the current asyncio task after some seconds, and remembers that it did.

    ``asyncio.timeout`` decides by the number of cancel requests of the task whether a ``CancelledError`` is its own.
    Author code changes that number: on Python 3.11 and 3.12 a ``TaskGroup`` that fails leaves it one too high, and so
    does each library that cancels the current task and does not call ``uncancel()``. This class reads no number.

    Args:
        seconds: from entering on.
        node: name of the node, for the error.
    """

    def __init__(self, seconds: float, node: str) -> None:
        self._seconds, self._node = seconds, node
        self._expired = False
        self._due = 0.0  # by the loop's clock

    def __enter__(self) -> Self:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    @property
    def expired(self) -> bool:
        """Whether the time is over, even if the loop was blocked and could not cancel the task."""
        return self._expired or self._loop.time() > self._due

    def error(self, detail: str = "") -> TimeoutError:
        """What the attempt fails with."""
        return TimeoutError(f"no result within {self._seconds:g} s (timeout of node {self._node!r}){detail}")

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()
