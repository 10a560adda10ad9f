"""A coordinator that does as it is told: it takes starts, and announces the ends that a test asks for."""

import asyncio

from flowkit.broker.memory import MemoryBroker
from flowkit.broker.protocol import Outgoing
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

TOPOLOGY = Topology()


class Coordinator:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._starts = None

    async def declare(self):
        await self._broker.declare(TOPOLOGY.standing)
        self._starts = self._broker.consume(TOPOLOGY.starts, prefetch=1000)

    async def starts(self, count: int) -> list[wire.Start]:
        """The next ``count`` starts."""
        found = []
        async with asyncio.timeout(5):
            while len(found) < count:
                deliveries = await self._starts.receive(count - len(found))
                await self._starts.ack(deliveries)
                found += [wire.decode(wire.Start, delivery.body) for delivery in deliveries]
        return found

    async def end(self, start: wire.Start, status="succeeded", **words) -> None:
        """Announce the end of the run that this start began."""
        if status == "succeeded":
            words = {"outputs": {}} | words  # as a coordinator always says them
        told = wire.RunEnded(run_id=start.run_id, node=start.node, status=status, **words)
        refused = {wire.REFUSED: wire.fingerprint(start)} if status == "conflict" else {}
        await self.publish(told.encode(), f"{status}.{start.node}", refused)

    async def publish(self, body: bytes, key: str, headers: dict | None = None) -> None:
        message = Outgoing(TOPOLOGY.name("runs"), key, body, wire.RunEnded.TYPE, mandatory=False, headers=headers or {})
        assert await self._broker.publish([message]) == [None]
