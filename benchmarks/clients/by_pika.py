"""pika's asyncio adapter: no task for a message, batches of confirms counted, prefixes acknowledged in one frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pika
from pamqp import commands
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import ChannelClosed, ChannelWrongStateError
from pika.spec import Basic

from benchmarks.clients.publishing import Batch, Confirms
from flowkit import amqp


def encode_properties(
    *, message_type: str | None = None, headers: Mapping[str, Any] | None = None, **more: Any
) -> pika.BasicProperties:
    """In pika's words."""
    return pika.BasicProperties(type=message_type, headers=dict(headers) if headers else None, **more)


async def connect(address: amqp.Address, *, heartbeat: int, properties: Mapping[str, object]) -> Connection:
    """Open a connection."""
    loop = asyncio.get_running_loop()
    parameters = pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(address.user, address.password),
        heartbeat=heartbeat,
        client_properties=dict(properties),
    )
    opened: asyncio.Future[None] = loop.create_future()
    made = Connection()
    made.pika = AsyncioConnection(
        parameters,
        on_open_callback=lambda _: opened.set_result(None),
        on_open_error_callback=lambda _, error: opened.set_exception(OSError(str(error))),
        on_close_callback=made.ended,
        custom_ioloop=loop,
    )
    await opened
    return made


class Connection:
    """A connection of pika's."""

    pika: AsyncioConnection
    blocked = False
    blocked_reason: str | None = None
    on_blocked: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.closed: asyncio.Future[amqp.ConnectionLost] = asyncio.get_running_loop().create_future()
        self.server_properties: Mapping[str, object] = {}
        self._channels: list[Channel] = []

    async def unblocked(self) -> None:
        """It is."""

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel = Channel(self.pika.channel(on_open_callback=lambda _: opened.set_result(None)))
        self._channels.append(channel)
        await opened
        if confirms:
            await channel.confirm()
        return channel

    async def close(self) -> None:
        """Close it."""
        self.abort()
        await self.closed

    def abort(self) -> None:
        """Begin to close it."""
        if self.pika.is_open:
            self.pika.close()

    def ended(self, _: object, error: BaseException) -> None:
        """It is gone."""
        if not self.closed.done():
            self.closed.set_result(amqp.ConnectionLost(str(error)))
        for channel in self._channels:
            channel.end(self.closed.result())


class Channel:
    """A channel of pika's."""

    def __init__(self, channel: Any) -> None:
        self._pika = channel
        self.closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.on_cancel: Callable[[str], None] | None = None
        self._confirms = Confirms()
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._returned)
        channel.add_on_cancel_callback(lambda frame: self.on_cancel and self.on_cancel(frame.method.consumer_tag))

    @property
    def is_closed(self) -> bool:
        """Whether it is gone."""
        return self.closed.done()

    async def confirm(self) -> None:
        """Ask for confirms."""
        await self._answer(lambda done: self._pika.confirm_delivery(self._settle, callback=done))

    async def publish(self, batch: Sequence[amqp.Publication]) -> list[amqp.Outcome]:
        """Publish all, and wait once."""
        waiting = Batch(batch)
        for at, (exchange, key, mandatory, _, properties, body) in enumerate(batch):
            try:
                self._confirms.expect(waiting, at)
                self._pika.basic_publish(exchange, key, body, properties, mandatory=mandatory)
            except ChannelWrongStateError:
                break
        if self.closed.done():
            self._confirms.fail(self.closed.result())
        await waiting.done
        return waiting.outcomes

    async def call(self, frame: Any) -> object:
        """The few questions that exclusive queues need."""
        match frame:
            case commands.Queue.Declare():
                return await self._answer(
                    lambda done: self._pika.queue_declare(
                        frame.queue, exclusive=frame.exclusive, arguments=frame.arguments, callback=done
                    )
                )
            case commands.Queue.Bind():
                return await self._answer(
                    lambda done: self._pika.queue_bind(frame.queue, frame.exchange, frame.routing_key, callback=done)
                )
            case _:
                return await self._answer(lambda done: self._pika.queue_delete(frame.queue, callback=done))

    async def qos(self, prefetch: int) -> None:
        """Prefetch from now on."""
        await self._answer(lambda done: self._pika.basic_qos(prefetch_count=prefetch, callback=done))

    async def consume(
        self, queue: str, on_deliveries: Callable[[list[Any]], None], *, arguments: Mapping[str, object] | None = None
    ) -> str:
        """Consume a queue; each message is a batch of its own, for pika calls back for each."""

        def arrived(_: object, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes) -> None:
            on_deliveries([Arrived(method, properties, body)])

        begun = await self._answer(
            lambda done: self._pika.basic_consume(queue, arrived, arguments=arguments, callback=done)
        )
        return str(begun.method.consumer_tag)

    async def cancel(self, consumer_tag: str) -> None:
        """Consume no more."""
        await self._answer(lambda done: self._pika.basic_cancel(consumer_tag, callback=done))

    def acknowledge(self, *, up_to: int | None, singles: Sequence[int]) -> None:
        """Done with these."""
        if self.is_closed:
            return
        if up_to is not None:
            self._pika.basic_ack(up_to, multiple=True)
        for tag in singles:
            self._pika.basic_ack(tag)

    def refuse(self, tags: Sequence[int], *, requeue: bool) -> None:
        """Not done with these."""
        for tag in tags:
            self._pika.basic_nack(tag, requeue=requeue)

    async def close(self) -> None:
        """Close it."""
        if not self.is_closed:
            self._pika.close()
            await asyncio.wait((self.closed,))

    def end(self, why: Exception) -> None:
        """It is gone."""
        if not self.closed.done():
            self.closed.set_result(why)
        self._confirms.fail(why)

    async def _answer(self, ask: Callable[[Callable[[Any], None]], object]) -> Any:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ask(lambda frame: None if answered.done() else answered.set_result(frame))
        await asyncio.wait((answered, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            raise self.closed.result()
        return answered.result()

    def _settle(self, frame: Any) -> None:
        method = frame.method
        outcome = None if isinstance(method, Basic.Ack) else amqp.Nacked()
        self._confirms.settle(method.delivery_tag, multiple=method.multiple, outcome=outcome)

    def _returned(self, _: object, method: Basic.Return, properties: pika.BasicProperties, __: bytes) -> None:
        self._confirms.returned(properties.message_id, amqp.Returned(method.reply_code, method.reply_text))

    def _closed(self, _: object, error: BaseException) -> None:
        if isinstance(error, ChannelClosed):
            self.end(amqp.ChannelClosed(error.reply_code, error.reply_text))
        else:
            self.end(amqp.ConnectionLost(str(error)))


class Arrived:
    """A delivery, as ``flowkit.amqp`` shows it."""

    __slots__ = ("_properties", "body", "exchange", "key", "redelivered", "tag")
    raw = b""

    def __init__(self, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes) -> None:
        self.tag, self.redelivered = method.delivery_tag, method.redelivered
        self.exchange, self.key, self.body = method.exchange, method.routing_key, body
        self._properties = properties

    @property
    def properties(self) -> SimpleNamespace:
        """What stands beside the body."""
        found = self._properties
        return SimpleNamespace(
            message_type=found.type, message_id=found.message_id, correlation_id=found.correlation_id,
            app_id=found.app_id, user_id=found.user_id, headers=found.headers or {},
        )  # fmt: skip
