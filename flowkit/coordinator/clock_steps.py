"""Recognises steps of the store's clock: times in rows are compared with it, and do not tell how long it has been."""

from __future__ import annotations

import asyncio
import logging

from flowkit.coordinator.ledger import Ledger

logger = logging.getLogger(__name__)
STEP = 2.0  # seconds: less is what clocks differ by while they are corrected


class ClockSteps:
    """Compares the store's clock with the loop's, which is never set."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._offset: tuple[float, float] | None = None  # by which the store's clock was ahead: at least, at most

    async def check(self) -> bool:
        """Ask the store for its time.

        Returns:
            whether its clock was set, or this machine slept, since the last check.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        now = await self._ledger.transact(lambda transaction: transaction.now())
        least, most = now - clock(), now - began
        before, self._offset = self._offset, (least, most)
        stepped = before is not None and (least > before[1] + STEP or most < before[0] - STEP)
        if stepped:
            logger.warning("the clock of the store was set: how long workers were silent is counted anew",
                           extra={"action": "clock_step"})  # fmt: skip
        return stepped
