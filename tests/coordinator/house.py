"""A coordinator under test, with the test itself as all its workers and clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from flowkit.broker import Broker, Consumer, Outgoing
from flowkit.coordinator import Coordinator, Pace
from flowkit.store.protocol import Store
from flowkit.store.views import Queries, RunRow, TaskRow
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

FAST = Pace(timers_every=0.02, relay_every=0.05, relay_after=0.05, sent_marks_after=0.02, sweep_every=3600,
            sweep_after=0, archive_lease=1, early=1, standing_every=0.2, progress_every=0.02,
            progress_silence=1)  # fmt: skip


class House:
    """What a test holds: it publishes starts and results, and reads tasks and the store."""

    def __init__(self, broker: Broker, store: Store, topology: Topology) -> None:
        self.broker, self.store, self.topology = broker, store, topology
        self._consumers: dict[str, Consumer] = {}

    @contextlib.asynccontextmanager
    async def coordinator(self, **more: Any) -> AsyncIterator[Coordinator]:
        """One that runs in this block, and drains at its end."""
        coordinator = Coordinator(self.broker, self.store, self.topology, **({"name": "c1", "pace": FAST} | more))
        running = asyncio.create_task(coordinator.run())
        ready = asyncio.create_task(coordinator.wait_ready())
        try:
            await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            yield coordinator
        finally:
            ready.cancel()
            coordinator.stop()
            await running

    async def start(self, node: str, run_id: str | None = None, **more: Any) -> None:
        message = {"node": node, **({"run_id": run_id} if run_id else {}), **more}
        await self.publish("starts", node, message)

    async def publish(self, exchange: str, key: str, message: Any, **more: Any) -> None:
        body = message if isinstance(message, bytes) else codec.dumps(message)
        sent = Outgoing(self.topology.name(exchange), key, body, type=f"flowkit.{exchange}", **more)
        assert await self.broker.publish([sent]) == [None]

    def consumer(self, node: str) -> Consumer:
        """The test's own, as the worker of a node."""
        if node not in self._consumers:
            self._consumers[node] = self.broker.consume(self.topology.tasks(node), prefetch=1000)
        return self._consumers[node]

    async def leave(self, node: str) -> None:
        """Stop being the worker of a node."""
        await self._consumers.pop(node).close()

    async def tasks(self, node: str, count: int = 1) -> list[wire.Task]:
        """The next task messages of a node, acknowledged."""
        consumer = self.consumer(node)
        found: list[wire.Task] = []
        while len(found) < count:
            deliveries = await consumer.receive(count - len(found))
            assert deliveries, f"the house was closed while {count - len(found)} tasks of {node} were waited for"
            found += [wire.decode(wire.Task, delivery.body) for delivery in deliveries]
            await consumer.ack(deliveries)
        return found

    async def answer(self, task: wire.Task, nodes: Any = (), outputs: Any = None, **more: Any) -> None:
        message = {"task_id": str(task.task_id), "run_id": task.run_id, "nodes": list(nodes), "outputs": outputs or {},
                   "message": "", **more}  # fmt: skip
        await self.publish("results", f"{task.node}.succeeded", message)

    async def run_ended(self, run_id: str) -> RunRow:
        return await self.until(lambda queries: _ended(queries.run(run_id)), f"run {run_id} ended")

    async def rows(self, run_id: str) -> list[TaskRow]:
        return await self.store.query(lambda queries: queries.tasks(run_id))

    async def until(self, look: Callable[[Queries], Any], what: str, timeout: float = 10) -> Any:
        """Look at the store until there is something to see."""
        try:
            async with asyncio.timeout(timeout):
                while not (found := await self.store.query(look)):
                    await asyncio.sleep(0)
                return found
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {what}") from None

    async def close(self) -> None:
        for consumer in self._consumers.values():
            await consumer.close()


def _ended(run: RunRow | None) -> RunRow | None:
    return run if run is not None and run.ended_at is not None else None
