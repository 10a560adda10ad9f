"""Publishing batches with confirms, over every reconnect, so that one bad message never holds up the others.

Only a lost connection is tried again here. Each message that the broker answers for gets its verdict.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence

from flowkit import amqp
from flowkit.broker.fresh import fresh_ids
from flowkit.broker.protocol import Outgoing
from flowkit.broker.rabbit.faults import LinkClosed, LinkLost
from flowkit.broker.rabbit.link import Link, pauses
from flowkit.broker.rabbit.session import Session, let_go
from flowkit.errors import NotSent, PublishError, QueueFull, TooLarge, Unroutable

PATIENCE = 5.0  # seconds that transient messages wait for their confirms
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

    def __init__(self, link: Link[Session], *, user: str | None, limit: int) -> None:
        self._link, self._user, self._limit = link, user, limit
        self._session: Session | None = None
        self._channel: amqp.Channel | None = None
        self._opening = asyncio.Lock()
        self._transient = 0
        self._ids = fresh_ids()
        self._missing: set[str] = set()  # exchanges that did not exist when they were last published to

    async def publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Publish durable messages; return when the broker has answered for each of them."""
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
        """Try all once, and return the verdicts; without one are those whose connection was lost."""
        suspects: Batch = {}
        if self._missing:  # a channel of their own: a missing exchange closes it, for all that is in flight there
            suspects = {at: message for at, message in batch.items() if message.exchange in self._missing}
            batch = {at: message for at, message in batch.items() if at not in suspects}
        settled: Verdicts = {}
        try:
            if batch:
                settled, blamed, _ = await self._send(await self._open(), batch)
                suspects = {**suspects, **blamed}
            if suspects:
                settled |= await self._isolate(suspects)
        except LinkLost:
            pass
        return settled

    async def _open(self) -> amqp.Channel:
        session = await self._link.unblocked()
        async with self._opening:
            if self._channel is None or self._channel.is_closed or self._session is not session:
                self._channel = await session.channel(confirms=True)
                self._session = session
            return self._channel

    async def _send(self, channel: amqp.Channel, batch: Batch) -> tuple[Verdicts, Batch, str]:
        """Publish all, pipelined; return verdicts, who was in flight when the broker closed the channel, and why."""
        settled: Verdicts = {}
        blamed: dict[int, Outgoing] = {}
        why = ""
        written: list[tuple[int, Outgoing]] = []
        publications: list[amqp.Publication] = []
        for at, message in batch.items():
            try:
                publications.append(self._publication(message))
            except (TypeError, ValueError) as error:
                settled[at] = _unwritable(error)
            else:
                written.append((at, message))
        for (at, message), outcome in zip(written, await channel.publish(publications), strict=True):
            match outcome:
                case None:
                    settled[at] = None
                case amqp.Returned():
                    unroutable = message.durable and message.mandatory
                    settled[at] = Unroutable(message.exchange, message.key) if unroutable else None
                case amqp.ChannelClosed():
                    blamed[at] = message
                    why = str(outcome)
                case amqp.Nacked():
                    settled[at] = QueueFull(message.exchange, message.key)
                case amqp.ConnectionLost():
                    pass  # again in the next round
                case ValueError():
                    settled[at] = _unwritable(outcome)
        return settled, blamed, why

    def _publication(self, message: Outgoing) -> amqp.Publication:
        # Fresh for every attempt, unless its caller needs it to survive: a message that comes back is known by it.
        message_id = message.message_id or next(self._ids)
        properties = amqp.encode_properties(
            content_type="application/json",
            delivery_mode=2 if message.durable else 1,
            message_id=message_id,
            correlation_id=message.correlation_id,
            message_type=message.type,
            app_id=message.app_id,
            user_id=self._user,
            headers=message.headers,
        )
        mandatory = message.durable and message.mandatory
        return message.exchange, message.key, mandatory, message_id, properties, message.body

    async def _isolate(self, batch: Batch) -> Verdicts:
        """Find who makes the broker close the channel: on a channel apart, by exchange, then by halves."""
        channel = await (await self._link.unblocked()).channel(confirms=True)
        try:
            settled, blamed, why = await self._send(channel, batch)
        finally:
            await let_go(channel)
        if self._missing and settled:
            self._missing.difference_update(batch[at].exchange for at, verdict in settled.items() if verdict is None)
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
            if exchange not in self._missing:
                self._missing.add(exchange)
                logger.warning(
                    "exchange %s is missing", exchange, extra={"action": "exchange_missing", "exchange": exchange}
                )
            settled |= {at: _no_exchange(message) for at, message in blamed.items()}
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


def _no_exchange(message: Outgoing) -> PublishError:
    if message.durable:
        return Unroutable(message.exchange, message.key)
    return NotSent(f"exchange {message.exchange!r} does not exist")


def _unwritable(error: Exception) -> PublishError:
    """A header of a type that AMQP does not have, a key over 255 bytes."""
    return PublishError(f"it cannot be written as AMQP: {error}")
