"""Ends the leases of tasks that no worker says he has: their processes have died.

Only silence that was listened to counts: this coordinator must have read announcements for as long as a lease lasts,
without a gap, and nothing may wait in which a worker says that he has the task, or has done it. And it must have been
able to speak all the time: an alarm of the broker silences all who publish, and leaves those who read in peace.
A clock that is set counts as a gap: by it, leases of workers that speak may seem to be over until they speak again.
"""

from __future__ import annotations

import asyncio
import logging

from flowkit.broker.protocol import Broker, Outgoing
from flowkit.coordinator.clock_steps import ClockSteps
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.presence import Presence
from flowkit.flow.events import LeaseExpired
from flowkit.store.protocol import Transaction
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
LIMIT = 500  # leases a look


class Silence:
    """Looks for leases that are over.

    Args:
        broker: where announcements and results may be waiting.
        topology: the names there.
        ledger: of this coordinator.
        outbox: of this coordinator.
        presence: reads the announcements.
        lasting: seconds that a lease lasts.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, presence: Presence, *,
                 lasting: float) -> None:  # fmt: skip
        self._broker, self._ledger, self._outbox = broker, ledger, outbox
        self._queues = (topology.workers.name, topology.results.name)
        # To nobody: no node has an empty name. Transient, as announcements are.
        self._probe = Outgoing(topology.name("tasks"), "", b"{}", "flowkit.probe", durable=False)
        self._presence, self._lasting = presence, lasting
        self._every, self._patience = lasting / 18, lasting / 3
        self._reconnects = presence.consumer.reconnects
        self._clock_steps = ClockSteps(ledger)
        self._looked = self._since = 0.0  # by the loop's clock: the last look, and the first one after a gap

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._every)
            while await self.look() == LIMIT:
                pass

    async def look(self) -> int:
        """One look.

        Returns:
            how many leases were over.
        """
        if not await self._has_listened():
            return 0
        over = await self._ledger.transact(self._expired)
        if await self._clock_steps.check():  # behind what was found by that clock
            self._since = asyncio.get_running_loop().time()
            return 0
        if not over or not await self._all_read() or not await self._has_listened():
            return 0
        logger.warning("%d leased tasks run nowhere any more: their workers fell silent", len(over),
                       extra={"action": "lease_expired", "tasks": len(over)})  # fmt: skip
        ended = await self._ledger.commit_possible(over)
        await self._outbox.deliver_all(ended)
        return len(over) if ended else 0

    def _expired(self, transaction: Transaction) -> list[LeaseExpired]:
        now = transaction.now()
        transaction.shorten_leases(now + self._lasting)
        return transaction.expired_leases(now, LIMIT)

    async def _has_listened(self) -> bool:
        consumer, speaks = self._presence.consumer, await self._broker.publish([self._probe]) == [None]
        gap = not speaks or not consumer.connected or self._reconnects != consumer.reconnects or self._stood_still()
        now = asyncio.get_running_loop().time()
        if gap:
            self._since = now
        self._looked, self._reconnects = now, consumer.reconnects
        return now - self._since >= self._lasting

    def _stood_still(self) -> bool:
        """Whether this process or its store did, or what reads the announcements does: who spoke was not heard."""
        now = asyncio.get_running_loop().time()
        return now - self._looked > self._patience or self._ledger.away or self._presence.behind > self._patience

    async def _all_read(self) -> bool:
        states = [await self._broker.inspect(queue) for queue in self._queues]
        return all(state is not None and state.ready == 0 for state in states)
