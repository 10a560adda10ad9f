"""A consumer of the in-memory broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import count

from flowkit.broker.memory.queue import Held, MemoryQueue
from flowkit.broker.memory.server import MissingExchange, Server
from flowkit.broker.protocol import COUNT, Delivery, Outgoing, PlainProperties
from flowkit.wire.topology import Queue


class MemoryConsumer:
    """Deliveries of one queue; what it holds goes back when it closes or its connection is cut.

    Args:
        server: the broker.
        connection: whose exclusive queues these are.
        declared: the queue.
        prefetch: how many unacknowledged deliveries may be out at a time.
        offset: where to begin in a stream.
    """

    def __init__(
        self, server: Server, connection: object, declared: Queue, prefetch: int, offset: int | str | None
    ) -> None:
        self._server, self._connection, self._declared = server, connection, declared
        self._prefetch, self._allowed, self._offset = prefetch, prefetch, offset
        self._queue: MemoryQueue | None = None
        self._tags, self._newest = count(1), 0
        self._held: dict[int, Held] = {}  # delivered and not acknowledged, in order
        self._arrived: deque[Delivery] = deque()  # of those, what receive() has not given out
        self._wake = asyncio.Event()
        self._stopped = self._suspended = False
        self._connected = False
        self.reconnects = -1  # the first connection is none
        self.deletions = self.session = 0
        server.consumers[self] = None

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive now."""
        return self._queue is not None and not self._stopped

    @property
    def room(self) -> bool:
        """Whether the queue may deliver one more."""
        return len(self._held) < self._allowed

    @property
    def holds(self) -> int:
        """How many deliveries are out and not acknowledged."""
        return len(self._held)

    @property
    def locked(self) -> bool:
        """Whether another connection holds this exclusive queue."""
        queue = self._server.queues.get(self._declared.name)
        mine = queue is None or queue.owner in (None, self._connection)
        return self._declared.exclusive and not mine and not self._stopped

    async def wait_locked(self) -> None:
        """Return when ``locked``."""
        await self._server.change.until(lambda: self.locked)

    async def wait_connected(self) -> None:
        """Return when ``connected``, or stopped."""
        while not (self.connected or self._stopped):
            await self._server.change.wait()

    async def wait_arrived(self) -> int | None:
        """The tag of the newest delivery: here they arrive at once."""
        await asyncio.sleep(0)  # as with any broker, others get a turn
        return self._newest if self.connected else None

    async def receive(self, limit: int) -> list[Delivery]:
        """What is there, at least one, at most ``limit``."""
        while not self._arrived:
            if self._stopped:
                return []
            self._wake.clear()
            await self._wake.wait()
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these; those that were given back since are not ours any more."""
        finished = [held for delivery in deliveries if (held := self._held.pop(delivery.tag, None))]
        self._allowed = min(self._prefetch, self._allowed << min(len(finished), 20))
        if self._queue is not None:
            self._queue.dispatch()
        self._server.change.notify()

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back to the queue."""
        self._give_back([delivery.tag for delivery in deliveries])

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Give these up: they go where the queue's dead letters go."""
        held = [one for delivery in deliveries if (one := self._held.pop(delivery.tag, None))]
        if self._queue is not None:
            self._queue.give_up(held)
        self._server.change.notify()

    async def suspend(self) -> None:
        """Give back what is not acknowledged, and take no more deliveries until ``resume``."""
        self._suspended = True
        if not self._stopped:
            self._leave_queue()
            self._server.change.notify()

    async def resume(self) -> None:
        """Take deliveries again."""
        if self._suspended:
            self._suspended = False
            self.reconnects += self._connected
            self.attach()

    async def stop(self) -> None:
        """Take no more deliveries."""
        self._stopped = True
        if self._queue is not None:
            self._queue.detach(self)
        self._wake.set()
        self._server.change.notify()

    async def close(self) -> None:
        """Stop and give back what was not acknowledged."""
        await self.stop()
        self._arrived.clear()
        self._give_back(list(self._held))
        queue, self._queue = self._queue, None
        self._server.consumers.pop(self, None)
        if self._declared.exclusive and queue is not None:
            self._server.drop_queue(self._declared.name)

    # What the connection and the queue call:

    def attach(self) -> None:
        """Begin to consume when the queue is there; an exclusive one is declared first."""
        if self._stopped or self._suspended or not self._connected:
            return
        if self._declared.exclusive:  # one that is there is bound again: its exchange may be a new one
            try:
                self._server.declare_exclusive(self._declared, self._connection)
            except MissingExchange:
                return  # tried again at the next declaration
        if self._queue is not None:
            return
        queue = self._server.queues.get(self._declared.name)
        if queue is None or queue.owner not in (None, self._connection):
            return
        self._queue = queue
        queue.attach(self, self._offset)
        self._server.change.notify()

    def restore(self) -> None:
        """The connection is there (again)."""
        if not self._connected:
            self._connected = True
            self.reconnects += 1
        self.attach()

    def cut(self) -> None:
        """The connection is gone: what was held goes back, and later acknowledgements of it mean nothing."""
        self._connected = False
        self._leave_queue()

    def _leave_queue(self) -> None:
        queue, self._queue = self._queue, None
        self.session += 1
        if queue is not None:
            queue.detach(self)
        if not self._declared.stream:  # what a stream has delivered stays: nobody else will get it in our place
            self._arrived.clear()
            self._newest = 0
        held = list(self._held.values())
        self._held.clear()
        if "x-delivery-limit" in dict(self._declared.arguments):
            self._allowed = 1  # whatever killed the connection, its bystanders shall not be counted again
        if queue is not None:
            queue.give_back(held)
            if self._declared.exclusive:
                self._server.drop_queue(self._declared.name)

    def cancelled(self) -> None:
        """The queue was deleted, with all that was held of it."""
        self._queue = None
        self.session += 1
        self._held.clear()  # what has arrived stays: nobody else will get it
        if self._declared.stream:
            self._offset = "first"  # of the stream that comes in its place
        self.deletions += 1
        if self._connected:
            self.reconnects += 1  # messages may have been missed

    def take(self, held: Held) -> None:
        """Deliver one message."""
        self._newest = tag = next(self._tags)
        self._held[tag] = held
        message = held.message
        delivery = Delivery(
            queue=self._declared.name,
            body=message.body,
            tag=tag,
            redelivered=held.redelivered,
            exchange=message.exchange,
            key=message.key,
            offset=held.offset,
            properties=partial(_properties, message, held.returns),
        )
        if held.offset is not None:
            self._offset = held.offset + 1
        self._arrived.append(delivery)
        self._wake.set()

    def _give_back(self, tags: list[int]) -> None:
        held = [one for tag in sorted(tags) if (one := self._held.pop(tag, None))]
        if self._queue is not None:
            self._queue.give_back(held)
        self._server.change.notify()


def _properties(message: Outgoing, returns: int) -> PlainProperties:
    headers = {**message.headers, COUNT: returns} if returns else dict(message.headers)
    return PlainProperties(message.type, message.message_id, message.correlation_id, message.app_id, headers=headers)
