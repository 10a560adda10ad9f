"""The in-memory broker as one client sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import ClassVar

from flowkit.broker.fresh import fresh_ids
from flowkit.broker.memory.consumer import MemoryConsumer
from flowkit.broker.memory.server import MissingExchange, NoRoom, NotConnected, Server
from flowkit.broker.protocol import MAX_MESSAGE_BYTES, Consumer, Outgoing, QueueState
from flowkit.errors import (
    BrokerUnreachable,
    NotFound,
    NotSent,
    PublishError,
    QueueFull,
    TooLarge,
    Unroutable,
    UsageError,
)
from flowkit.wire.topology import Exchange, Part, Queue


class MemoryBroker:
    """A connection to a broker in this process.

    Args:
        server: the broker; a new one of its own when left out.
        name: what the address calls it.
        max_message_bytes: the size limit of a body.
    """

    _named: ClassVar[dict[str, Server]] = {}

    def __init__(
        self, server: Server | None = None, *, name: str = "", max_message_bytes: int = MAX_MESSAGE_BYTES
    ) -> None:
        self._server = server or Server()
        self._name, self._limit = name, max_message_bytes
        self._consumers: list[MemoryConsumer] = []
        self._up = True
        self._closed = False
        self._generation = 1
        self._lose_confirms = False
        self._ids = fresh_ids()

    @classmethod
    def named(cls, name: str) -> MemoryBroker:
        """A new connection to this process's broker of that name; the empty name is one too."""
        return cls(cls._named.setdefault(name, Server()), name=name)

    @property
    def url(self) -> str:
        """The address."""
        return f"memory:{self._name}"

    @property
    def connected(self) -> bool:
        """Whether publishing works now."""
        return self._up and not self._server.blocked and not self._closed

    @property
    def blocked_reason(self) -> str | None:
        """Why it accepts no messages: a test has raised an alarm."""
        return self._server.blocked

    async def find_alarm(self, timeout: float) -> str | None:
        """Ask whether it accepts messages, which is known."""
        del timeout
        await self._once_up()
        return self._server.blocked

    @property
    def generation(self) -> int:
        """Rises with every new connection."""
        return self._generation + self._server.wipes

    async def connect(self, timeout: float) -> None:
        """Make sure that it answers; it fails after ``timeout`` seconds only when a test holds it down."""
        try:
            async with asyncio.timeout(timeout):
                while not self._up:
                    await self._server.change.wait()
        except TimeoutError:
            raise BrokerUnreachable(self.url, "it is held down") from None

    async def wait_connected(self) -> None:
        """Return when ``connected``."""
        while not self.connected:
            await self._server.change.wait()

    async def declare(self, parts: Iterable[Part]) -> list[Part]:
        """Declare exchanges and queues; here nothing is ever forbidden."""
        for part in parts:
            if isinstance(part, Queue) and part.exclusive:
                raise UsageError(f"queue {part.name!r} is exclusive: consume() declares it, on its own connection")
            await self._once_up()
            try:
                self._server.declare(part)
            except MissingExchange as missing:
                raise NotFound("exchange", str(missing), f"Queue {part.name!r} is to be bound to it.") from None
        return []

    async def publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Publish all; waits while the connection is down or an alarm blocks it."""
        await asyncio.sleep(0)  # as with any broker, others get a turn while one waits for the confirms
        verdicts: dict[int, PublishError | None] = {}
        while True:
            for at, message in enumerate(messages):
                if at not in verdicts:
                    with suppress(NotConnected):
                        verdicts[at] = self._try(message)
            if self._lose_confirms and self.connected:
                self._lose_confirms = False
                verdicts = {at: verdict for at, verdict in verdicts.items() if not messages[at].durable}
                self.disconnect()
            elif len(verdicts) == len(messages):
                return [verdicts[at] for at in range(len(messages))]
            else:
                await self._server.change.wait()

    def consume(
        self, queue: Queue, *, prefetch: int, offset: int | str | None = None, own_connection: bool = False
    ) -> Consumer:
        """Consume a queue from now on."""
        connection = object() if own_connection or queue.stream else self
        consumer = MemoryConsumer(self._server, connection, queue, prefetch, offset)
        self._consumers = [one for one in self._consumers if one in self._server.consumers]
        self._consumers.append(consumer)
        if self._up:
            consumer.restore()
        return consumer

    async def inspect(self, queue: str) -> QueueState | None:
        """Look at a queue without changing it."""
        await self._once_up()
        found = self._server.queues.get(queue)
        return None if found is None else QueueState(len(found), len(found.takers))

    async def exists(self, exchange: Exchange) -> bool:
        """Whether the exchange exists."""
        await self._once_up()
        return self._server.has_exchange(exchange.name)

    async def missing(self, parts: Iterable[Part]) -> list[Part]:
        """Which of these exchanges and queues do not exist."""
        await self._once_up()
        return [
            part
            for part in parts
            if not (
                self._server.has_exchange(part.name) if isinstance(part, Exchange) else part.name in self._server.queues
            )
        ]

    async def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it."""
        await self._once_up()
        self._server.drop_queue(queue)

    async def close(self) -> None:
        """Close all consumers: what they hold goes back."""
        self._closed = True
        for consumer in self._consumers:
            await consumer.close()
        self._server.change.notify()

    # Faults, for tests and simulations:

    def disconnect(self) -> None:
        """Cut every connection of this client, and make them again."""
        self.go_down()
        self.come_back()

    def go_down(self) -> None:
        """Cut every connection of this client until ``come_back``."""
        self._up = False
        for consumer in self._consumers:
            consumer.cut()

    def come_back(self) -> None:
        """Connect again after ``go_down``."""
        self._up = True
        self._generation += 1
        for consumer in self._consumers:
            consumer.restore()
        self._server.change.notify()

    def lose_confirms(self) -> None:
        """Let the next ``publish`` be stored, lose its confirms with the connection, and therefore publish it again."""
        self._lose_confirms = True

    def block(self) -> None:
        """Raise an alarm on the broker: nobody can publish, everybody can acknowledge."""
        self._server.blocked = "low on memory"

    def unblock(self) -> None:
        """End the alarm."""
        self._server.blocked = None
        self._server.change.notify()

    def limit_length(self, queue: str, most: int | None) -> None:
        """Let a queue that exists refuse what is over so many messages, as a policy does; None: as it was declared."""
        self._server.queues[queue].limit_length(most)

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange with its bindings, as an operator does by mistake."""
        self._server.drop_exchange(name)

    def delete_binding(self, exchange: str, queue: str) -> None:
        """Delete what binds a queue to an exchange."""
        self._server.drop_binding(exchange, queue)

    def wipe(self) -> None:
        """Let the broker forget everything; every client loses its connections and makes them again."""
        self._server.wipe()

    async def _once_up(self) -> None:
        while not self._up:
            await self._server.change.wait()

    def _try(self, message: Outgoing) -> PublishError | None:
        """Publish one message; a durable one that has to wait raises ``NotConnected``."""
        if len(message.body) > self._limit:
            return TooLarge(len(message.body), self._limit)
        if self._closed:
            return NotSent("the broker was closed")
        unroutable = Unroutable(message.exchange, message.key)
        try:
            routed = self._store(message)
        except NoRoom:
            return QueueFull(message.exchange, message.key)
        except MissingExchange as missing:
            return unroutable if message.durable else NotSent(f"exchange {str(missing)!r} does not exist")
        except NotConnected:
            if message.durable:
                raise
            return NotSent("the link to the broker is down")
        return unroutable if not routed and message.durable and message.mandatory else None

    def _store(self, message: Outgoing) -> int:
        if not self.connected:
            raise NotConnected
        message_id = message.message_id or next(self._ids)
        copied = message._replace(body=bytes(message.body), headers=dict(message.headers), message_id=message_id)
        return self._server.route(copied)
