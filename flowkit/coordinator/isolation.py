"""What goes wrong in one loop, with one message or one row, stops neither the others nor the coordinator.

Three kinds of errors, three answers, the same in every loop:

- the store or the broker cannot do it now: ``Ledger.transact`` and the broker wait, and try again
- one item of many cannot be processed: ``process_apart`` finds it, the others go on, and ``Skipped`` says so
- an error that nobody expected, which is a bug: ``keep_running`` logs it with its traceback and begins the loop again

Only what trying again cannot change ends the coordinator: a broker or a store that says no for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from flowkit.errors import Refused, Unreachable, Unreadable, Unstorable

logger = logging.getLogger(__name__)
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
FINAL = (Refused, Unreachable)  # trying again changes nothing, and the error says what to do
SURROUNDINGS = (Unreachable, OSError, MemoryError)  # not the fault of any item
PAUSES = (0.5, 1, 2, 5, 10, 30)  # seconds before a loop begins again; the last one repeats
CALM = 60.0  # seconds without an error, after which the pauses begin anew
REASONS = 100  # different reasons that are remembered, and logged each by itself


async def keep_running(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop until it returns; begin it again, after a pause that grows, when it fails by an unexpected error.

    Raises:
        FlowKitError: broker or store say something that trying again cannot change.
    """
    failures, clock = 0, asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            return await loop()
        except Exception as error:
            if (final := _first(error, FINAL)) is not None:
                raise final from error
            failures = 0 if clock() - began > CALM else failures
            pause = PAUSES[min(failures, len(PAUSES) - 1)]
            logger.exception("%s failed by an unexpected error, beginning again in %g s", name, pause,
                             extra={"action": "loop_failed", "loop": name})  # fmt: skip
        await asyncio.sleep(pause)
        failures += 1


async def process_apart(
    items: Sequence[I], work: Callable[[Sequence[I]], Awaitable[R]]
) -> tuple[list[R], list[tuple[I, Exception]]]:
    """Process items together; when that fails halves of them, until those that cannot be processed stand alone.

    Args:
        items: in their order, which stays.
        work: processes some of them; it may see an item several times, and each time as the first.

    Returns:
        what ``work`` returned, and each item that it failed with when it stood alone.

    Raises:
        Unreachable: broker or store, not an item, is at fault.
    """
    if not items:
        return [], []
    try:
        return [await work(items)], []
    except Exception as error:
        if (outside := _first(error, SURROUNDINGS)) is not None:
            raise outside from error
        if len(items) == 1:
            return [], [(items[0], error)]
    half = len(items) // 2
    results, failed = await process_apart(items[:half], work)
    more, others = await process_apart(items[half:], work)
    return results + more, failed + others


class Skipped:
    """Says what a loop has skipped: each reason once, and again whenever ten times as many were skipped for it.

    Args:
        what: the items, such as ``log lines``.
        action: of the log records.
    """

    def __init__(self, what: str, action: str) -> None:
        self._what, self._action = what, action
        self._counts: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many items were skipped."""
        return self._counts.total()

    def add(self, item: str, error: Exception) -> None:
        """Count one item, and log it if its reason is new; an error that nobody expected has its traceback."""
        reason = f"{type(error).__name__}: {error}"[:300]
        if reason not in self._counts and len(self._counts) >= REASONS:
            reason = "other reasons"
        self._counts[reason] += 1
        count = self._counts[reason]
        if str(count).strip("0") == "1":  # 1, 10, 100 …
            expected = isinstance(error, Unreadable | Unstorable)
            logger.error("%s: %s is skipped (%d for this reason, %d in all): %s", self._what, item[:200], count,
                         self.total, reason, exc_info=None if expected else error,
                         extra={"action": self._action, "skipped": self.total})  # fmt: skip


def _first(error: BaseException, kinds: tuple[type[Exception], ...]) -> BaseException | None:
    """The first error of these kinds, also out of groups."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := _first(one, kinds)) is not None), None)
    return error if isinstance(error, kinds) else None
