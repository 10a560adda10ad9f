"""A broker in memory, a worker on it, and the other side: what a coordinator would see."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from flowkit.broker import Outgoing
from flowkit.broker.memory import MemoryBroker
from flowkit.broker.memory.server import Server
from flowkit.wire.messages import Control, Log, Result, Task, decode, decode_many
from flowkit.wire.messages import Worker as Announcement
from flowkit.wire.topology import Topology
from flowkit.worker import Worker


class House:
    """One broker; the worker's connection to it is apart from the test's."""

    def __init__(self):
        server = Server()
        self.topology = Topology()
        self.broker, self.mine = MemoryBroker(server), MemoryBroker(server)
        self._consumers, self._kept = {}, {}

    @asynccontextmanager
    async def worker(self, *definitions, broker=None, **options):
        options = {"heartbeat": 3600, "log_linger": 0, "name": "w"} | options
        worker = Worker(broker or self.broker, self.topology, definitions, **options)
        running = asyncio.create_task(worker.run())
        ready = asyncio.create_task(worker.ready())
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        try:
            yield worker
        finally:
            worker.force()
            await worker.stop()
            await running

    async def send(self, *tasks: Task):
        await self.raw("tasks", *[(task.node, task.encode(), Task.TYPE) for task in tasks])

    async def control(self, **fields):
        await self.raw("control", ("", Control(**fields).encode(), Control.TYPE))

    async def raw(self, exchange, *messages, headers=None):
        name = self.topology.name(exchange)
        durable = exchange != "control"
        outgoing = [
            Outgoing(name, key, body, kind, durable=durable, headers=headers or {}) for key, body, kind in messages
        ]
        assert await self.mine.publish(outgoing) == [None] * len(messages)

    async def receive(self, queue, count=1):
        """The next deliveries of a queue, acknowledged."""
        await self.mine.declare(self.topology.standing)
        consumer = self._consumers.get(queue.name)
        if consumer is None:
            offset = "first" if queue.stream else None
            consumer = self._consumers[queue.name] = self.mine.consume(queue, prefetch=10_000, offset=offset)
        got = []
        while len(got) < count:
            got += (batch := await consumer.receive(count - len(got)))
            await consumer.ack(batch)
        return got

    async def results(self, count=1) -> list[Result]:
        return await self._parts(Result, self.topology.results, count)

    async def result(self) -> Result:
        return (await self.results())[0]

    async def logs(self, count=1) -> list[Log]:
        return await self._parts(Log, self.topology.logs, count)

    async def _parts(self, model, queue, count):
        """The next messages of a queue in which several may share one."""
        kept = self._kept.setdefault(queue.name, [])
        while len(kept) < count:
            for delivery in await self.receive(queue):
                kept += decode_many(model, delivery.body)
        taken, kept[:] = kept[:count], kept[count:]
        return taken

    async def announcement(self) -> Announcement:
        return decode(Announcement, (await self.receive(self.topology.workers))[0].body)

    async def left(self, node="work") -> int:
        """What is ready in a node's queue."""
        return (await self.mine.inspect(self.topology.tasks(node).name)).ready


@pytest.fixture
async def house():
    house = House()
    yield house
    await house.broker.close()
    await house.mine.close()


@pytest.fixture
def gate():
    """Holds mains back until it is opened; tells how many are inside."""
    return Gate()


class Gate:
    def __init__(self):
        self.open = asyncio.Event()
        self.ids, self._more = [], asyncio.Condition()

    async def main(self):
        from flowkit.worker.current import current

        async with self._more:
            self.ids.append(current.get().task.task_id)
            self._more.notify_all()
        await self.open.wait()
        return [], {}, "through"

    async def inside(self, count):
        async with self._more:
            await self._more.wait_for(lambda: len(self.ids) >= count)
