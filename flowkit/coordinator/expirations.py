"""Ends what has run out of time: runs at their deadlines, Gathers and waits at their timeouts."""

from __future__ import annotations

import asyncio

from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.publish_queue import PublishQueue
from flowkit.flow.events import Event
from flowkit.store.protocol import Transaction

LIMIT = 500  # events in a transaction


class Expirations:
    """Looks every ``every`` seconds for runs, scopes and waits whose time has passed.

    Args:
        ledger: of this coordinator.
        publishing: takes what follows: a commit never waits until the one before is published.
        every: seconds between looks.
    """

    def __init__(self, ledger: Ledger, publishing: PublishQueue, *, every: float) -> None:
        self._ledger, self._publishing, self._every = ledger, publishing, every

    async def run(self) -> None:
        """For ever."""
        while True:
            while await self.look() == LIMIT:
                pass
            await asyncio.sleep(self._every)

    async def look(self) -> int:
        """Commit what has expired, at most ``LIMIT`` events.

        Returns:
            how many there were; 0 when none of them could be committed, and the same would be found again at once.
        """
        events = await self._ledger.transact(_expired)
        commits = await self._ledger.commit_possible(events)
        for committed in commits:
            self._publishing.add(committed)
        return len(events) if commits else 0


def _expired(transaction: Transaction) -> list[Event]:
    return transaction.expired(transaction.now(), LIMIT)
