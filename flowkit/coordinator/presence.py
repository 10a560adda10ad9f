"""Which workers are there: reads their announcements, which are heartbeats too."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from flowkit.broker.protocol import Broker
from flowkit.coordinator.dropped import Dropped
from flowkit.coordinator.isolation import Skipped, process_apart
from flowkit.coordinator.leases import Leases
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.errors import Unreadable
from flowkit.wire import messages as wire
from flowkit.wire.access import Logins
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)


class Presence:
    """The workers that were heard of, in the store for everyone, and here."""

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, leases: Leases, *,
                 silence: float, logins: Logins | None = None) -> None:  # fmt: skip
        self._logins = logins or Logins()
        self._skipped = Skipped("announcements", "bad_announcement")
        self._ledger, self._outbox, self._leases, self._silence = ledger, outbox, leases, silence
        self._heard: dict[str, tuple[float, wire.Worker]] = {}  # when, by the loop's clock, and what
        self._took: float | None = None  # when it took the batch that it has in hand, by the loop's clock
        self.dropped = Dropped("announcement", "bad_announcement")
        self.committed = 0  # the newest tag up to which all deliveries are committed
        self.consumer = broker.consume(topology.workers, prefetch=200)

    async def run(self) -> None:
        """For ever, until the consumer is stopped."""
        while deliveries := await self.consumer.receive(200):
            self._took = asyncio.get_running_loop().time()
            announcements: dict[str, wire.Worker] = {}
            for delivery in deliveries:
                try:
                    told = wire.decode(wire.Worker, delivery.body)
                except Unreadable as error:
                    self.dropped.add(error)  # it is worth no dead letter: the next one comes in five seconds
                else:
                    announcements[told.worker] = self._allowed(told, delivery.user_id)
            _, failed = await process_apart(list(announcements.values()), self._record)
            for told, problem in failed:
                self._skipped.add(f"of worker {told.worker}", problem)
            self.committed = max(delivery.tag for delivery in deliveries)
            await self.consumer.ack(deliveries)
            self._took = None

    async def _record(self, announcements: Sequence[wire.Worker]) -> None:
        now = asyncio.get_running_loop().time()
        for told in announcements:
            self._heard[told.worker] = (now, told)
        await self._ledger.transact(lambda transaction: transaction.record_workers(announcements, transaction.now()))
        self._outbox.know(node for told in announcements for node in told.nodes)
        await self._leases.answer(announcements)  # first: a lease must not wait for a broker that is away
        await self._outbox.declare({node.name for told in announcements for node in told.nodes})

    def _allowed(self, told: wire.Worker, login: str | None) -> wire.Worker:
        """Without the nodes that its login may not answer for: nobody else shall change their limits."""
        answers_for = self._logins.answers_for(login)
        if answers_for is None:
            return told
        others = [node.name for node in told.nodes if node.name not in answers_for]
        if others:
            logger.warning("worker %s of login %r announces nodes that are not its own: %s", told.worker, login,
                           ", ".join(others[:10]), extra={"action": "forbidden_nodes"})  # fmt: skip
        return told.model_copy(update={"nodes": tuple(node for node in told.nodes if node.name in answers_for)})

    def alive(self) -> list[wire.Worker]:
        """Workers heard of lately that are not stopping."""
        since = asyncio.get_running_loop().time() - self._silence
        self._heard = {name: heard for name, heard in self._heard.items() if heard[0] >= since}
        return [told for _, told in self._heard.values() if not told.stopping]

    @property
    def behind(self) -> float:
        """For how many seconds it has been at the announcements that it has in hand."""
        return 0 if self._took is None else asyncio.get_running_loop().time() - self._took

    def workers_of(self, node: str) -> int:
        """How many of them run ``node``."""
        return sum(any(info.name == node for info in told.nodes) for told in self.alive())


def consumers_of(workers: Iterable[wire.Worker]) -> Counter[str]:
    """How many consumers the queues of nodes have as these workers announce it; more belong to who says nothing."""
    counts: Counter[str] = Counter()
    for worker in workers:
        for node in worker.nodes:
            counts[node.name] += worker.consumers_of(node.name)
    return counts
