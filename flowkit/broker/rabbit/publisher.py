"""Publishing batches with confirms, over every reconnect, so that one bad message never holds up the others."""

from __future__ import annotations

import asyncio
import logging
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from uuid import uuid4

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange
from aio_pika.exceptions import ChannelClosed, DeliveryError
from aio_pika.exceptions import PublishError as Returned

from flowkit.broker.protocol import Outgoing
from flowkit.broker.rabbit.connection import Connection, close_channel, open_channel
from flowkit.broker.rabbit.faults import LinkClosed, LinkLost, guard
from flowkit.broker.rabbit.link import Link, pauses
from flowkit.errors import NotSent, PublishError, TooLarge, Unroutable

PATIENCE = 5.0  # seconds that transient messages wait for their confirms
WINDOW = 500  # messages that wait for their confirms at a time
IN_FLIGHT = 10_000  # transient messages on their way at a time; more are dropped

Batch = Mapping[int, Outgoing]  # by position in what the caller gave
Verdicts = dict[int, PublishError | None]
logger = logging.getLogger(__name__)


class Publisher:
    """Publishes on one link.

    Args:
        link: the connection.
        user: the login, which the broker checks and passes on; None to send none.
        limit: the size limit of a body, in bytes.
    """

    def __init__(self, link: Link, *, user: str | None, limit: int) -> None:
        self._link, self._user, self._limit = link, user, limit
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._transient = 0

    async def publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Publish durable messages; return when each is confirmed or cannot ever be."""
        verdicts, waiting = self._sizes(messages)
        waits = pauses(most=1.0)
        try:
            while waiting:
                settled = await self._round(waiting)
                verdicts |= settled
                waiting = {at: message for at, message in waiting.items() if at not in settled}
                if waiting:
                    await asyncio.sleep(next(waits))
        except LinkClosed as closed:
            verdicts |= {at: NotSent(str(closed)) for at in waiting}
        return [verdicts[at] for at in range(len(messages))]

    async def drop_or_publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Publish transient messages at once, or not at all."""
        verdicts, waiting = self._sizes(messages)
        why = await self._not_now(len(waiting))
        if not why:
            self._transient += len(waiting)
            try:
                async with asyncio.timeout(PATIENCE):
                    verdicts |= await self._round(waiting)
                why = "it was not confirmed"
            except TimeoutError:
                why = f"not confirmed in {PATIENCE:g} s"
            except LinkClosed as closed:
                why = str(closed)
            finally:
                self._transient -= len(waiting)
        return [verdicts[at] if at in verdicts else NotSent(why) for at in range(len(messages))]

    async def _not_now(self, count: int) -> str:
        """Why transient messages cannot be sent now; the very first ones wait until the first connection is decided."""
        link = self._link
        link.start()
        try:
            async with asyncio.timeout(PATIENCE):
                await link.change.until(lambda: link.generation > 0 or link.trouble is not None)
        except TimeoutError:
            pass
        if not link.up:
            return "the link to the broker is down"
        return "too many on their way" if self._transient + count > IN_FLIGHT and self._transient else ""

    def _sizes(self, messages: Sequence[Outgoing]) -> tuple[Verdicts, Batch]:
        """Sort out what is too large: it would close the channel, and fail all that is in flight on it."""
        sizes = {at: len(message.body) for at, message in enumerate(messages)}
        verdicts: Verdicts = {at: TooLarge(size, self._limit) for at, size in sizes.items() if size > self._limit}
        return verdicts, {at: message for at, message in enumerate(messages) if at not in verdicts}

    async def _round(self, batch: Batch) -> Verdicts:
        """Try all once, and return the verdicts that are final."""
        try:
            channel = await self._open()
            settled, blamed, _ = await self._send(channel, batch)
            if blamed:
                settled |= await self._isolate(blamed)
        except LinkLost:
            return {}
        return settled

    async def _open(self) -> AbstractChannel:
        connection = await self._link.unblocked()
        async with self._opening:
            if self._channel is None or self._channel.is_closed or self._connection is not connection:
                self._channel = await open_channel(connection, confirms=True)
                self._connection = connection
            return self._channel

    async def _send(self, channel: AbstractChannel, batch: Batch) -> tuple[Verdicts, Batch, str]:
        """Publish all, pipelined; return verdicts, who was in flight when the broker closed the channel, and why.

        A window at a time: each message on its way holds some 10 kB until it is confirmed.
        """
        names = {message.exchange for message in batch.values()}
        exchanges = {name: await channel.get_exchange(name, ensure=False) for name in names}
        outcomes: list[PublishError | BaseException | None] = []
        for window in windows(list(batch.values())):
            attempts = [self._publish(channel, exchanges[message.exchange], message) for message in window]
            outcomes += await asyncio.gather(*attempts, return_exceptions=True)
        settled: Verdicts = {}
        blamed: dict[int, Outgoing] = {}
        why = ""
        for (at, message), outcome in zip(batch.items(), outcomes, strict=True):
            match outcome:
                case None:
                    settled[at] = None
                case PublishError():
                    settled[at] = outcome
                case ChannelClosed():
                    blamed[at] = message
                    why = str(outcome)
                case LinkLost() | DeliveryError():
                    pass  # again in the next round; a negative confirm is a full queue, which may have room then
                case _:
                    raise outcome
        return settled, blamed, why

    async def _publish(
        self, channel: AbstractChannel, exchange: AbstractExchange, message: Outgoing
    ) -> PublishError | None:
        mandatory = message.durable and message.mandatory
        try:
            with guard():
                await exchange.publish(self._envelope(message), message.key, mandatory=mandatory)
        except Returned:
            return Unroutable(message.exchange, message.key) if mandatory else None
        except LinkLost as error:
            written = not isinstance(error.__cause__, TypeError | ValueError | struct.error)
            if written or channel.is_closed:
                raise
            return PublishError(f"it cannot be written as AMQP: {error}")  # a header, or a key over 255 bytes
        return None

    def _envelope(self, message: Outgoing) -> Message:
        return Message(
            message.body,
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT if message.durable else DeliveryMode.NOT_PERSISTENT,
            # Fresh for every attempt: returned messages are matched by it, so two in flight must never share one.
            message_id=message.message_id or uuid4().hex,
            correlation_id=message.correlation_id,
            type=message.type,
            app_id=message.app_id,
            user_id=self._user,
            headers=dict(message.headers),
        )

    async def _isolate(self, batch: Batch) -> Verdicts:
        """Find who makes the broker close the channel: on a channel apart, by exchange, then by halves."""
        channel = await open_channel(await self._link.unblocked(), confirms=True)
        settled, blamed, why = await self._send(channel, batch)
        await close_channel(channel)
        if not blamed:
            return settled
        by_exchange: dict[str, dict[int, Outgoing]] = {}
        for at, message in blamed.items():
            by_exchange.setdefault(message.exchange, {})[at] = message
        if len(by_exchange) > 1:
            for group in by_exchange.values():
                settled |= await self._isolate(group)
        elif "NOT_FOUND" in why:
            exchange = next(iter(by_exchange))
            logger.warning(
                "exchange %s is missing", exchange, extra={"action": "exchange_missing", "exchange": exchange}
            )
        elif "access to exchange" in why:
            settled |= {at: PublishError(why) for at in blamed}
        elif len(blamed) == 1:
            settled |= {at: self._sentence(message, why) for at, message in blamed.items()}
        else:
            items = list(blamed.items())
            for half in (items[: len(items) // 2], items[len(items) // 2 :]):
                settled |= await self._isolate(dict(half))
        return settled

    def _sentence(self, message: Outgoing, why: str) -> PublishError:
        size = re.search(r"larger than configured max size (\d+)", why)
        return TooLarge(len(message.body), int(size[1])) if size else PublishError(why)


def windows(messages: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    """All messages, ``WINDOW`` at a time."""
    return (messages[first : first + WINDOW] for first in range(0, len(messages), WINDOW))
