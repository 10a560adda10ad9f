"""Steps of the store's clock: times in rows are compared with it, and do not tell how long it has been."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkit.coordinator.ledger import Ledger

logger = logging.getLogger(__name__)
STEP = 2.0  # seconds: less is what clocks differ by while they are corrected


class StepDetector:
    """Compares times of the store's clock with those of the loop's, which is never set."""

    def __init__(self) -> None:
        self._offset: tuple[float, float] | None = None  # by which the store's clock was ahead: at least, at most
        self._stepped_at: float | None = None  # by the loop's clock

    def observe(self, now: float, began: float, ended: float) -> bool:
        """Take note of a time.

        Args:
            now: Unix seconds, by the store's clock.
            began: by the loop's clock, before the store was asked.
            ended: by the loop's clock, after it had answered.

        Returns:
            whether the store's clock was set, or this machine slept, since the time before.
        """
        least, most = now - ended, now - began
        before, self._offset = self._offset, (least, most)
        stepped = before is not None and (least > before[1] + STEP or most < before[0] - STEP)
        if stepped:
            self._stepped_at = ended
        return stepped

    def steady_for(self, at: float) -> float:
        """For how many seconds, at a time of the loop's clock, no step has been seen; endless when none ever was."""
        return math.inf if self._stepped_at is None else at - self._stepped_at


class ClockSteps:
    """Asks the store for its time at each look of a loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._detector = ledger, StepDetector()

    async def check(self) -> bool:
        """Ask the store for its time.

        Returns:
            whether its clock was set, or this machine slept, since the last check.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        now = await self._ledger.transact(lambda transaction: transaction.now())
        stepped = self._detector.observe(now, began, clock())
        if stepped:
            logger.warning("the clock of the store was set: how long workers were silent is counted anew",
                           extra={"action": "clock_step"})  # fmt: skip
        return stepped

    def steady_for(self, at: float) -> float:
        """For how many seconds, at a time of the loop's clock, no check has seen a step; endless when none ever did."""
        return self._detector.steady_for(at)
