"""RabbitMQ as one client sees it: a link for what must arrive, one for what may be lost, and links for consuming."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from flowkit.addresses import without_query
from flowkit.broker.address import check
from flowkit.broker.protocol import MAX_MESSAGE_BYTES, Consumer, Outgoing, QueueState
from flowkit.broker.rabbit.consumer import RabbitConsumer
from flowkit.broker.rabbit.faults import LinkLost, cancel_requests
from flowkit.broker.rabbit.link import L, Link, Open, pauses
from flowkit.broker.rabbit.publisher import Publisher
from flowkit.broker.rabbit.session import Session
from flowkit.errors import FlowKitError, PublishError, UsageError
from flowkit.wire.topology import Exchange, Part, Queue

if TYPE_CHECKING:  # whoever only publishes and consumes need not wait for aio-pika
    from aiormq.abc import AbstractChannel as UnderlayChannel

    from flowkit.broker.rabbit.desk import Desk

Answer = TypeVar("Answer")


logger = logging.getLogger(__name__)


class RabbitBroker:
    """A RabbitMQ.

    Publishing and consuming have connections of their own: under a memory or disk alarm the broker stops reading from
    those that publish, and acknowledgements sent on one of them would never arrive. Messages go by FlowKit's own data
    path; what is asked and declared, now and then, by aio-pika on a connection that is opened when it is needed.

    Args:
        url: ``amqp://user:password@host:port/virtual-host``, or ``amqps://``.
        heartbeat: seconds between heartbeats.
        max_message_bytes: the size limit of a body.
        refusal_patience: seconds. When it has refused the login (or has no such virtual host) for so long, whoever
            publishes or receives gets ``BrokerUnreachable``: better no worker than a deaf one.
    """

    def __init__(
        self,
        url: str,
        *,
        heartbeat: float = 15,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        refusal_patience: float = 20,
    ) -> None:
        check(url)
        self._address, self._heartbeat, self._refusal_patience = url, heartbeat, refusal_patience
        self._links: weakref.WeakSet[Link[Any]] = weakref.WeakSet()
        self._durable, self._transient, self._shared = (
            self._link(what, Session.open) for what in ("publish", "signal", "consume")
        )
        self._desk = self._link("ask", _open_desk)
        user = unquote(urlsplit(url).username or "") or None
        self._publisher = Publisher(self._durable, user=user, limit=max_message_bytes)
        self._signals = Publisher(self._transient, user=user, limit=max_message_bytes)
        self._consumers: list[RabbitConsumer] = []
        self._alarm: str | None = None  # that was logged

    @property
    def url(self) -> str:
        """The address with the password masked."""
        return without_query(self._address)

    @property
    def connected(self) -> bool:
        """Whether publishing works now: the link is up, and not blocked by an alarm of the broker."""
        return self._durable.up and self.blocked_reason is None

    @property
    def blocked_reason(self) -> str | None:
        """Why the broker accepts no messages, as far as it has said so."""
        return self._durable.blocked_reason or self._transient.blocked_reason

    async def find_alarm(self, timeout: float) -> str | None:
        """Ask whether the broker accepts messages, by publishing one to nobody."""
        probe = Outgoing("", "flowkit.nobody", b"{}", "flowkit.probe", mandatory=False)
        answers = (
            asyncio.ensure_future(self._publisher.publish([probe])),
            asyncio.ensure_future(self._durable.change.until(lambda: self._durable.blocked_reason is not None)),
        )
        try:
            await asyncio.wait(answers, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for answer in answers:
                answer.cancel()
            await asyncio.wait(answers)
        return self.blocked_reason

    def _note_blocked(self, lost: bool) -> None:  # noqa: FBT001 - a callback
        """Log the beginning and the end of an alarm, once for all connections; a lost one says nothing of it."""
        before, self._alarm = self._alarm, self.blocked_reason
        if lost:
            return
        if self._alarm is not None and before is None:
            logger.warning(
                "broker %s accepts no messages: %s. What is to be published waits; see 'rabbitmqctl status'",
                self.url, self._alarm, extra={"action": "broker_blocked", "reason": self._alarm},
            )  # fmt: skip
        elif self._alarm is None and before is not None:
            logger.info("broker %s accepts messages again", self.url, extra={"action": "broker_unblocked"})

    @property
    def generation(self) -> int:
        """Rises with every new connection for publishing."""
        return self._durable.generation

    async def connect(self, timeout: float) -> None:
        """Make sure that it answers within ``timeout`` seconds."""
        await self._durable.attempt(timeout)

    async def server_version(self) -> str:
        """What the broker says it is, such as ``3.13.7``; empty when it does not say."""
        return str((await self._durable.connection()).server_properties.get("version", ""))

    async def wait_connected(self) -> None:
        """Return when ``connected``."""
        while not self.connected:
            await self._durable.unblocked()
            if self._transient.blocked_reason is not None:  # the same alarm, which the other link may not know of yet
                await self._transient.unblocked()

    async def declare(self, parts: Iterable[Part]) -> list[Part]:
        """Declare exchanges, queues and bindings; what permissions forbade is returned."""
        wanted = list(parts)
        for part in wanted:
            if isinstance(part, Queue) and part.exclusive:
                raise UsageError(f"queue {part.name!r} is exclusive: consume() declares it, on its own connection")
        from flowkit.broker.rabbit.declare import declare_all

        waits, requests = pauses(most=1.0), cancel_requests()
        while True:
            try:
                await self._durable.connection()  # so that what is declared belongs to a generation
                return await declare_all(self._desk, wanted)
            except LinkLost:
                if cancel_requests() > requests:  # swallowed, as the connection ended at the same moment
                    raise asyncio.CancelledError from None
                await asyncio.sleep(next(waits))

    async def publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        """Publish all, pipelined, with one wait for their confirms."""
        durable = [at for at, message in enumerate(messages) if message.durable]
        if len(durable) == len(messages):
            return await self._publisher.publish(messages)
        if not durable:
            return await self._signals.drop_or_publish(messages)
        kept = set(durable)
        signals = [at for at in range(len(messages)) if at not in kept]
        lasting, passing = await asyncio.gather(
            self._publisher.publish([messages[at] for at in durable]),
            self._signals.drop_or_publish([messages[at] for at in signals]),
        )
        verdicts = dict(zip(durable, lasting, strict=True)) | dict(zip(signals, passing, strict=True))
        return [verdicts[at] for at in range(len(messages))]

    def consume(
        self, queue: Queue, *, prefetch: int, offset: int | str | None = None, own_connection: bool = False
    ) -> Consumer:
        """Consume a queue from now on, through reconnects."""
        owns = own_connection or queue.stream
        link = self._link(f"consume {queue.name}", Session.open) if owns else self._shared
        consumer = RabbitConsumer(link, queue, prefetch=prefetch, offset=offset, owns_link=owns, appears=self._appears)
        self._consumers = [one for one in self._consumers if not one.closed]
        self._consumers.append(consumer)
        return consumer

    async def inspect(self, queue: str) -> QueueState | None:
        """Look at a queue without changing it; None when it does not exist."""
        from flowkit.broker.rabbit import declare

        return await self._ask(lambda channel: declare.inspect(channel, queue))

    async def exists(self, exchange: Exchange) -> bool:
        """Whether the exchange exists."""
        from flowkit.broker.rabbit import declare

        return await self._ask(lambda channel: declare.exists(channel, exchange))

    async def missing(self, parts: Iterable[Part]) -> list[Part]:
        """Which of these exchanges and queues do not exist."""
        from flowkit.broker.rabbit.declare import find_missing

        wanted, waits, requests = list(parts), pauses(most=1.0), cancel_requests()
        while True:
            try:
                return await find_missing(self._desk, wanted)
            except LinkLost:
                if cancel_requests() > requests:  # swallowed, as the connection ended at the same moment
                    raise asyncio.CancelledError from None
                await asyncio.sleep(next(waits))

    async def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it; a missing one is no error."""
        from flowkit.broker.rabbit import declare

        await self._ask(lambda channel: declare.delete(channel, queue))

    async def close(self) -> None:
        """Close all links within 3 s or abandon them."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        links = (self._durable, self._transient, self._shared, self._desk)
        await asyncio.gather(*(link.close() for link in links))

    def _link(self, what: str, open: Open[L]) -> Link[L]:  # noqa: A002 - what it does
        link = Link(
            self._address,
            open,
            name=f"flowkit {what}",
            heartbeat=self._heartbeat,
            refusal_patience=self._refusal_patience,
            on_blocked=self._note_blocked,
            on_connected=self._replace_others,
        )
        self._links.add(link)
        return link

    def _replace_others(self, newest: Link[Any]) -> None:
        """Have connections made anew that lead to another broker than the newest one does.

        A name or an address was moved to another broker while the former one lives on. Messages that are published to
        one and consumed from the other would wait for ever.
        """
        name = newest.cluster_name
        others = [link for link in self._links if name is not None and link.cluster_name not in (None, name)]
        if others:
            logger.warning("broker %s is another one now: %s, and no longer %s. Older connections are made anew",
                           self.url, name, others[0].cluster_name, extra={"action": "broker_replaced"})  # fmt: skip
        for link in others:
            link.replace()

    async def _appears(self, queue: str) -> None:
        """Return when there is such a queue, or when nobody can tell."""
        with suppress(FlowKitError):  # met again by consuming it
            for pause in pauses(most=1.0):
                if await self.inspect(queue) is not None:
                    return
                await asyncio.sleep(pause)

    async def _ask(self, question: Callable[[UnderlayChannel], Awaitable[Answer]]) -> Answer:
        """Ask on a channel of its own, again after a lost connection."""
        from flowkit.broker.rabbit.connection import answered, close_channel, open_underlay_channel

        waits, requests = pauses(most=1.0), cancel_requests()
        while True:
            try:
                channel = await open_underlay_channel((await self._desk.connection()).connection)
                try:
                    async with answered("a question"):
                        return await question(channel)
                finally:
                    await close_channel(channel)
            except LinkLost:
                if cancel_requests() > requests:  # swallowed, as the connection ended at the same moment
                    raise asyncio.CancelledError from None
                await asyncio.sleep(next(waits))


async def _open_desk(url: str, *, heartbeat: int, properties: Mapping[str, object]) -> Desk:
    from flowkit.broker.rabbit.desk import Desk

    return await Desk.open(url, heartbeat=heartbeat, properties=properties)
