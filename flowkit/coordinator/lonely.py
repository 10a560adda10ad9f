"""Says which nodes have tasks and no worker: such tasks wait for ever, and nobody would know why."""

from __future__ import annotations

import asyncio
import logging

from flowkit.broker.protocol import Broker
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.presence import Presence
from flowkit.store.protocol import Transaction
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)


class LonelyNodes:
    """Looks every ``every`` seconds, which is also how long a task may be out before its node counts as lonely."""

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, presence: Presence, *, every: float) -> None:
        self._broker, self._topology = broker, topology
        self._ledger, self._presence, self._every = ledger, presence, every
        self._told: set[str] = set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._every)
            await self._broker.wait_connected()
            await self.look()

    async def look(self) -> None:
        """Say of each lonely node once that it is, until it was not."""

        def work(transaction: Transaction) -> list[str]:
            return transaction.nodes_sent(transaction.now() - self._every)

        lonely = {node for node in await self._ledger.transact(work) if await self._is_lonely(node)}
        for node in sorted(lonely - self._told):
            logger.warning("node %s has no worker: its tasks wait for 'flowkit worker --node %s'", node, node,
                           extra={"action": "no_worker", "node": node})  # fmt: skip
        self._told = lonely

    async def _is_lonely(self, node: str) -> bool:
        if self._presence.workers_of(node):
            return False
        # A foreign worker announces nothing, but it consumes.
        queue = await self._broker.inspect(self._topology.tasks(node).name)
        return queue is None or queue.consumers == 0
