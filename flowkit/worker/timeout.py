"""The timeout of one attempt."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from flowkit.worker.stack import place_of_thread

LOOK = 0.25  # seconds between two looks at attempts that are over their time


class Timeout:
    """Cancels the current asyncio task after some seconds, and remembers that it did.

    ``asyncio.timeout`` decides by the number of cancel requests of the task whether a ``CancelledError`` is its own.
    Author code changes that number: on Python 3.11 and 3.12 a ``TaskGroup`` that fails leaves it one too high, and so
    does each library that cancels the current task and does not call ``uncancel()``. This class reads no number.

    Args:
        seconds: from entering on.
        node: name of the node, for the error.
        tell: called in another thread, once, with the reason why the attempt does not end at its time.
    """

    def __init__(self, seconds: float, node: str, tell: Callable[[str], object]) -> None:
        self._seconds, self._node, self._tell = seconds, node, tell
        self._expired = False
        self._reason = ""  # of the last look
        self._due = 0.0  # by the loop's clock

    def __enter__(self) -> Self:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._thread = threading.get_ident()
        now = self._loop.time()
        self._due = now + self._seconds
        self._timer = self._loop.call_at(self._due, self._expire)
        if abs(now - time.monotonic()) < 1:  # not so in a simulation, whose time is its own
            _watch.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        _watch.discard(self)

    @property
    def expired(self) -> bool:
        """Whether the time is over, even if the loop was blocked and could not cancel the task."""
        return self._expired or self._loop.time() > self._due

    def error(self, detail: str = "") -> TimeoutError:
        """What the attempt fails with."""
        return TimeoutError(f"no result within {self._seconds:g} s (timeout of node {self._node!r}){detail}")

    def look(self) -> bool:
        """Tell why the attempt goes on beyond its time, if two looks in a row find the same; whether it was told."""
        if time.monotonic() <= self._due:
            return False
        running = asyncio.current_task(self._loop)
        if running is None:
            reason = "does not end when it is cancelled"
        elif running is self._task:
            reason = f"blocks, at {place_of_thread(self._thread)}"
        else:
            reason = f"cannot be cancelled: {running.get_name()} blocks the loop, at {place_of_thread(self._thread)}"
        # Without the line: code that computes is at another one each time.
        before, self._reason = self._reason, reason.partition(", at ")[0]
        if before != self._reason:
            return False
        self._tell(
            f"main of node {self._node!r} goes on beyond its timeout of {self._seconds:g} s: it {reason}. "
            "The attempt fails when it ends"
        )
        return True

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()


class _Watch:
    """A thread that looks at the attempts under way: their own may be blocked."""

    def __init__(self) -> None:
        self._attempts: set[Timeout] = set()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, attempt: Timeout) -> None:
        """Look at this one."""
        self._attempts.add(attempt)
        if self._thread is None or not self._thread.is_alive():  # the first one, or the first one in a forked process
            self._thread = threading.Thread(target=self._run, name="flowkit-timeouts", daemon=True)
            self._thread.start()
        if not self._some.is_set():
            self._some.set()

    def discard(self, attempt: Timeout) -> None:
        """It has ended, or was told of."""
        self._attempts.discard(attempt)

    def _run(self) -> None:
        while True:
            if not self._attempts:
                self._some.clear()
                if not self._attempts:  # nobody came in between
                    self._some.wait()
            time.sleep(LOOK)
            for attempt in self._attempts.copy():
                if attempt.look():
                    self.discard(attempt)


_watch = _Watch()
