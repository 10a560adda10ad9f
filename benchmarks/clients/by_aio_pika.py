"""aio-pika, used as well as it can be: messages published by its underlay, prefixes acknowledged in one frame.

Its own classes for messages and consumers cost more still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import aiormq
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelClosed
from pamqp import commands
from yarl import URL

from flowkit import amqp

WINDOW = 500  # each message on its way holds a task and some 10 kB


def encode_properties(*, headers: Mapping[str, Any] | None = None, **more: Any) -> commands.Basic.Properties:
    """In the words of pamqp."""
    return commands.Basic.Properties(headers=dict(headers) if headers else None, **more)


async def connect(address: amqp.Address, *, heartbeat: int, properties: Mapping[str, object]) -> Connection:
    """Open a connection."""
    url = URL.build(
        scheme="amqp", user=address.user, password=address.password, host=address.host, port=address.port,
        path="/" + ("" if address.vhost == "/" else address.vhost), query={"heartbeat": str(heartbeat)},
    )  # fmt: skip
    made = Connection(url, client_properties=dict(properties))
    await made.connect()
    return made


class Connection(aiormq.Connection):
    """A connection of aiormq's."""

    blocked = False
    blocked_reason: str | None = None
    on_blocked: Callable[[], None] | None = None

    async def connect(self, client_properties: dict[str, Any] | None = None) -> bool:
        """Open it."""
        done = await super().connect(client_properties)
        self.closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.closing.add_done_callback(self._ended)
        return done

    def _ended(self, closing: asyncio.Future[Any]) -> None:
        if not self.closed.done():
            self.closed.set_result(amqp.ConnectionLost(repr(None if closing.cancelled() else closing.exception())))

    async def unblocked(self) -> None:
        """It is."""

    async def channel(self, *, confirms: bool = False) -> Channel:  # type: ignore[override]
        """Open a channel."""
        return Channel(await super().channel(publisher_confirms=confirms, on_return_raises=confirms), self)

    def abort(self) -> None:
        """It is closed already."""


class Channel:
    """A channel of aiormq's."""

    def __init__(self, channel: Any, connection: Connection) -> None:
        self._channel, self._connection = channel, connection
        self.closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.on_cancel: Callable[[str], None] | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        channel.closing.add_done_callback(self._ended)
        channel.on_consumer_cancel_callbacks.add(lambda frame: self.on_cancel and self.on_cancel(frame.consumer_tag))

    @property
    def is_closed(self) -> bool:
        """Whether it is gone."""
        return self.closed.done()

    async def publish(self, batch: Sequence[amqp.Publication]) -> list[amqp.Outcome]:
        """Publish all, pipelined, and wait for their confirms."""
        outcomes: list[amqp.Outcome] = []
        for first in range(0, len(batch), WINDOW):
            outcomes += await asyncio.gather(*(self._publish(one) for one in batch[first : first + WINDOW]))
        return outcomes

    async def _publish(self, publication: amqp.Publication) -> amqp.Outcome:
        exchange, key, mandatory, _, properties, body = publication
        try:
            await self._channel.basic_publish(
                body, exchange=exchange, routing_key=key, properties=properties, mandatory=mandatory
            )
        except aiormq.exceptions.PublishError as error:
            return amqp.Returned(312, str(error))
        except aiormq.DeliveryError:
            return amqp.Nacked()
        except ChannelClosed as error:
            return amqp.ChannelClosed(*error.args[:2])
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a dying connection raises anything
            return amqp.ConnectionLost(repr(error))
        return None

    async def call(self, frame: Any) -> object:
        """Any question."""
        return await self._channel.rpc(frame)

    async def qos(self, prefetch: int) -> None:
        """Prefetch from now on."""
        await self._channel.basic_qos(prefetch_count=prefetch)

    async def consume(
        self, queue: str, on_deliveries: Callable[[list[Any]], None], *, arguments: Mapping[str, Any] | None = None
    ) -> str:
        """Consume a queue; each message is a batch of its own, in a task of its own."""

        async def arrived(message: DeliveredMessage) -> None:
            on_deliveries([Arrived(message)])

        begun = await self._channel.basic_consume(queue, arrived, arguments=dict(arguments) if arguments else None)
        return str(begun.consumer_tag)

    async def cancel(self, consumer_tag: str) -> None:
        """Consume no more."""
        await self._channel.basic_cancel(consumer_tag)

    def acknowledge(self, *, up_to: int | None, singles: Sequence[int]) -> None:
        """Done with these."""
        if up_to is not None:
            self._soon(self._channel.basic_ack(up_to, multiple=True, wait=False))
        for tag in singles:
            self._soon(self._channel.basic_ack(tag, wait=False))

    def refuse(self, tags: Sequence[int], *, requeue: bool) -> None:
        """Not done with these."""
        for tag in tags:
            self._soon(self._channel.basic_nack(tag, requeue=requeue, wait=False))

    async def close(self) -> None:
        """Close it."""
        await self._channel.close()

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ended(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if self.closed.done():
            return
        if isinstance(error, ChannelClosed):
            self.closed.set_result(amqp.ChannelClosed(*error.args[:2]))
        else:
            self.closed.set_result(amqp.ConnectionLost(repr(error)))


class Arrived:
    """A delivery, as ``flowkit.amqp`` shows it."""

    __slots__ = ("_message", "body", "exchange", "key", "redelivered", "tag")
    raw = b""

    def __init__(self, message: DeliveredMessage) -> None:
        self._message = message
        self.tag, self.redelivered = message.delivery_tag or 0, bool(message.redelivered)
        self.exchange, self.key, self.body = message.exchange or "", message.routing_key or "", message.body

    @property
    def properties(self) -> SimpleNamespace:
        """What stands beside the body."""
        found = self._message.header.properties
        return SimpleNamespace(
            message_type=found.message_type, message_id=found.message_id, correlation_id=found.correlation_id,
            app_id=found.app_id, user_id=found.user_id, headers=found.headers or {},
        )  # fmt: skip
