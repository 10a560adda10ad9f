"""Gives back what a coordinator holds while its store is away: another one may reach it.

Messages that wait unacknowledged for a store that one coordinator alone cannot reach would stand still, although the
others are well. What is in a transaction at that moment may be committed: it comes again, and is deduplicated.
Quorum queues of RabbitMQ 3.x count what is given back as delivered, so that is done once for each time the store is
away, and not before it has been away for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from flowkit.broker.protocol import Consumer
from flowkit.coordinator.ledger import Ledger

logger = logging.getLogger(__name__)


class Standby:
    """Suspends consumers while the store is away.

    Args:
        ledger: of this coordinator.
        consumers: of this coordinator: all whose deliveries wait for the store.
        after: seconds that the store must have been away.
    """

    def __init__(self, ledger: Ledger, consumers: Sequence[Consumer], *, after: float) -> None:
        self._ledger, self._consumers, self._after = ledger, consumers, after

    async def run(self) -> None:
        """For ever."""
        await self._resume()  # an error may have ended it while they were suspended
        while True:
            await self._ledger.failed.wait()
            try:
                async with asyncio.timeout(self._after):
                    await self._ledger.answered.wait()
            except TimeoutError:
                await self._stand_by()

    async def _stand_by(self) -> None:
        logger.warning("store is away: what waits for it is given back, for other coordinators",
                       extra={"action": "standby"})  # fmt: skip
        await asyncio.gather(*(consumer.suspend() for consumer in self._consumers))
        await self._ledger.answered.wait()
        await self._resume()

    async def _resume(self) -> None:
        await asyncio.gather(*(consumer.resume() for consumer in self._consumers))
