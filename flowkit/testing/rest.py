"""Whether anything is going on: what is at rest waits for time, for a signal, or for nothing at all."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.broker.memory.consumer import MemoryConsumer
from flowkit.broker.memory.queue import MemoryQueue, MemoryStream
from flowkit.broker.memory.server import Server
from flowkit.store.protocol import Store
from flowkit.store.views import NodeCount
from flowkit.testing.process import Process
from flowkit.wire.topology import Topology


class Rest:
    """Looks at all that could be going on.

    Args:
        server: the broker.
        store: the store.
        topology: the names on the broker.
        processes: all of them.
    """

    def __init__(self, server: Server, store: Store, topology: Topology, processes: Sequence[Process]) -> None:
        self._server, self._store, self._topology = server, store, topology
        self._processes = processes

    async def look(self, now: float) -> tuple[bool, float | None]:
        """Whether nothing happens any more before time brings it about, or somebody; and when time does, if ever."""
        if not all(process.ready and not process.busy for process in self._processes) or self._moving():
            return False, None
        counts, due, unfinished = await self._store.query(
            lambda queries: (queries.nodes(), queries.next_due(), queries.unannounced() + queries.cancelled_attempts())
        )
        return not unfinished and (due is None or due > now) and all(map(self._stands, counts)), due

    def _moving(self) -> bool:
        """Whether a message is under way."""
        held = any(isinstance(taker, MemoryConsumer) and taker.holds for taker in self._server.consumers)
        return held or any(len(queue) and queue.takers for queue in self._queues())

    def _queues(self) -> list[MemoryQueue]:
        return [queue for queue in self._server.queues.values() if not isinstance(queue, MemoryStream)]

    def _stands(self, count: NodeCount) -> bool:
        """Whether all tasks of a node that are out stand in its queue, because it has no worker.

        Those of a node with a worker are under way, or vanished: then the sweeper will find them.
        """
        if count.running:
            return False
        queue = self._server.queues.get(self._topology.tasks(count.node).name)
        return count.queued <= (0 if queue is None else len(queue))
