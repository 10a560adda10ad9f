"""Consuming one queue: a channel on a link, opened again after every loss."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from flowkit import amqp
from flowkit.broker.change import Change
from flowkit.broker.protocol import Delivery
from flowkit.broker.rabbit.arriving import offset_of, read
from flowkit.broker.rabbit.exclusive import bind, declare, delete
from flowkit.broker.rabbit.faults import CLOSE, LinkClosed, LinkLost, refused
from flowkit.broker.rabbit.link import Link, pauses
from flowkit.broker.rabbit.session import Session, let_go
from flowkit.errors import AccessRefused, BrokerUnreachable, FlowKitError, Refused
from flowkit.wire.topology import Queue

# A quorum queue that is deleted and declared again within milliseconds leaves its consumers deaf, without a word
# (RabbitMQ 3.10): what it shall hear counts as delivered. So one that hears nothing for this many seconds, and holds
# nothing, opens a new channel: after twice as long at most, since the first look may find that something was heard.
QUIET = 12.0
# Nobody is told that an exchange was deleted, and its bindings with it: a queue of one connection is bound again every
# so many seconds. A binding that is there stays as it is.
REBIND = 4.0
# RabbitMQ 3.10 shows a quorum queue before it is ready, and who consumes it then takes the whole connection down with
# INTERNAL_ERROR. So a queue that was missing is only looked at, which does no harm, and left alone for this long (s).
SETTLE = 0.3
SESSION = 1 << 40  # a tag is session * SESSION + AMQP's delivery tag: those of dead channels are recognised by it
GONE = (LinkLost, amqp.ConnectionLost, amqp.ChannelClosed)
FORBIDDEN, MISSING, LOCKED, DIFFERENT = 403, 404, 405, 406  # https://www.rabbitmq.com/amqp-0-9-1-reference#constants
logger = logging.getLogger(__name__)


class RabbitConsumer:
    """Deliveries of one queue.

    Args:
        link: the connection, which closes with this consumer when it is its own.
        queue: what to consume.
        prefetch: how many unacknowledged deliveries may be out at a time.
        offset: where to begin in a stream.
        owns_link: whether nobody else uses the link.
        appears: returns when there is a queue of this name.
    """

    quiet, rebind = QUIET, REBIND

    def __init__(
        self,
        link: Link[Session],
        queue: Queue,
        *,
        prefetch: int,
        offset: int | str | None,
        owns_link: bool,
        appears: Callable[[str], Awaitable[None]],
    ) -> None:
        self._link, self._queue, self._owns_link, self._appears = link, queue, owns_link, appears
        self._prefetch, self._allowed = prefetch, prefetch
        self._slow_start = "x-delivery-limit" in dict(queue.arguments)
        self._offset = offset
        self._channel: amqp.Channel | None = None  # while deliveries can arrive or be acknowledged
        self._consumer_tag: str | None = None
        self._session = self._newest = 0
        self._last = 0  # tag of the newest delivery that has arrived and was not given back
        self._arrived: deque[Delivery] = deque()
        self._open: dict[int, None] = {}  # AMQP delivery tags of this session, unacknowledged, rising
        self._wake = asyncio.Event()
        self._change = Change()
        self._look = asyncio.Event()  # the loop shall look again: the queue was cancelled, or more is allowed
        self._cancelled = self._was_lost = self._locked = False
        self._stop = asyncio.Event()
        self._suspended = False
        self._error: FlowKitError | None = None
        self.reconnects = self.deletions = 0
        self._task = asyncio.create_task(self._run(), name=f"flowkit consume {queue.name}")
        self._task.add_done_callback(lambda _: self._tell())

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive now."""
        return self._consumer_tag is not None and not self._stopped

    @property
    def _stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def closed(self) -> bool:
        """Whether it has ended, and holds nothing."""
        return self._task.done()

    async def wait_connected(self) -> None:
        """Return when ``connected``, or stopped."""
        while not (self.connected or self._stopped):
            self._fail_if_ended()
            await self._change.wait()

    @property
    def session(self) -> int:
        """Rises with every channel: closing one gives back what it held."""
        return self._session

    async def wait_arrived(self) -> int | None:
        """Ask a question on the channel: its answer stands behind the deliveries."""
        channel, session = self._channel, self._session
        if channel is None or not self.connected:
            return None
        try:
            await channel.qos(self._allowed)
        except GONE:
            return None
        return self._last if self.connected and self._session == session else None

    @property
    def locked(self) -> bool:
        """Whether another connection holds this exclusive queue."""
        return self._locked and not self._stopped

    async def wait_locked(self) -> None:
        """Return when ``locked``."""
        await self._change.until(lambda: self.locked)

    async def receive(self, limit: int) -> list[Delivery]:
        """What is there, at least one, at most ``limit``."""
        while not self._arrived:
            if self._stopped and self._consumer_tag is None:  # until then more may come, and is to be given back
                return []
            self._fail_if_ended()
            self._wake.clear()
            await self._wake.wait()
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these: up to the first gap with one frame, the others one by one."""
        tags = self._take(deliveries)
        channel = self._channel
        if channel is None or not tags:
            return
        oldest = next(iter(self._open), None)
        together = len(tags) if oldest is None else bisect_left(tags, oldest)
        channel.acknowledge(up_to=tags[together - 1] if together else None, singles=tags[together:])
        if self._allowed < self._prefetch:
            self._allowed = min(self._prefetch, self._allowed << min(len(tags), 20))
            self._look.set()

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back; a stream takes nothing back."""
        await self._refuse(deliveries, requeue=True)

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Give these up: they go where the queue's dead letters go."""
        await self._refuse(deliveries, requeue=False)

    async def _refuse(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        if self._queue.stream:
            await self.ack(deliveries)
            return
        tags, channel = self._take(deliveries), self._channel
        if channel is not None and tags:
            channel.refuse(tags, requeue=requeue)

    async def suspend(self) -> None:
        """Give back what is not acknowledged, by closing the channel, and open no other one until ``resume``."""
        self._suspended = True
        self._look.set()
        await self._change.until(lambda: self._channel is None or self._stopped or not self._suspended)

    async def resume(self) -> None:
        """Take deliveries again."""
        self._suspended = False
        self._change.notify()

    async def stop(self) -> None:
        """Take no more deliveries; those taken can still be acknowledged."""
        if not self._stopped:
            channel, tag = self._channel, self._consumer_tag
            self._stop.set()
            if channel is not None and tag is not None:
                try:
                    async with asyncio.timeout(CLOSE):
                        await channel.cancel(tag)
                except (*GONE, TimeoutError):
                    pass
            self._consumer_tag = None
            self._look.set()
        self._tell()

    async def close(self) -> None:
        """Stop and let go: what was not acknowledged goes back to the queue."""
        await self.stop()
        self._arrived.clear()
        self._task.cancel()
        await asyncio.wait((self._task,))
        if self._owns_link:
            await self._link.close()

    def _tell(self) -> None:
        self._wake.set()
        self._change.notify()

    def _fail_if_ended(self) -> None:
        if self._error is not None:
            raise self._error
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    def _take(self, deliveries: Sequence[Delivery]) -> list[int]:
        """The AMQP tags of those that are still ours to answer, rising; they are not any more after this."""
        tags = [tag for delivery in deliveries if (tag := self._tag(delivery)) in self._open]
        for tag in tags:
            self._open.pop(tag, None)
        return sorted(set(tags))

    def _tag(self, delivery: Delivery) -> int:
        session, tag = divmod(delivery.tag, SESSION)
        return tag if session == self._session else 0

    async def _run(self) -> None:
        waits = pauses(most=1.0)
        while not self._stopped:
            await self._change.until(lambda: self._stopped or not self._suspended)
            if self._stopped:
                return
            try:
                channel = await (await self._link.connection()).channel()
            except LinkClosed:
                await self.stop()
                return
            except BrokerUnreachable as error:
                self._fail(error)
                return
            except LinkLost:
                await asyncio.sleep(next(waits))
                continue
            missing = False
            try:
                await self._serve(channel)
                continue
            except (AccessRefused, Refused) as error:
                self._fail(error)
                return
            except GONE as error:
                if self.connected:
                    self._lost(error)
                    waits = pauses(most=1.0)
                else:
                    logger.debug("queue %s: %s", self._queue.name, error)
                code = error.code if isinstance(error, amqp.ChannelClosed) else None
                missing = self._cancelled or code == MISSING
                self._locked = code == LOCKED
            finally:
                self._end_session()
                await self._let_go(channel)
            await asyncio.sleep(next(waits))
            if missing and not self._queue.exclusive:
                await self._appearance()

    async def _appearance(self) -> None:
        """Wait until the queue is there and ready to be consumed."""
        appeared, stopped = (asyncio.ensure_future(one) for one in (self._appears(self._queue.name), self._stop.wait()))
        try:
            await asyncio.wait((appeared, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            appeared.cancel()
            stopped.cancel()
        await asyncio.sleep(SETTLE)

    def _fail(self, error: FlowKitError) -> None:
        """It cannot be consumed, and trying again cannot help: whoever receives gets the reason."""
        self._error = error
        self._tell()

    async def _serve(self, channel: amqp.Channel) -> None:
        """Consume, and when stopped stay for acknowledgements; raise when the channel or the queue is gone.

        Returns when it has been so quiet that a new channel is in order.
        """
        self._session += 1
        self._channel, self._cancelled = channel, False
        channel.on_cancel = self._on_cancel
        granted = await self._begin(channel)
        while True:
            newest = self._newest
            changed = await self._first(channel.closed)
            if channel.closed.done():
                raise channel.closed.result()
            if self._cancelled:
                self.deletions += 1
                if self._queue.stream:
                    self._offset = "first"  # of the stream that comes in its place
                raise LinkLost("the queue was deleted")
            if self._suspended and not self._stopped:
                self._begin_carefully()
                return
            if self._stopped:
                await self._end_late_consumer(channel)
                continue  # only acknowledgements are left to wait for
            if self._consumer_tag is None:
                continue
            if self._queue.exclusive and not changed:
                await self._rebind()
            elif not changed and newest == self._newest and not self._open:
                return
            if granted < self._allowed:
                await channel.cancel(self._consumer_tag)
                granted = await self._consume(channel)

    async def _rebind(self) -> None:
        """Bind an exclusive queue again: somebody may have deleted its exchange, or what binds it.

        On a channel of its own, so that a login that may not bind any more goes on consuming.

        Raises:
            LinkLost: the exchange is missing: messages may have been missed, so the consumer begins anew.
        """
        try:
            binding = await (await self._link.connection()).channel()
            try:
                await bind(binding, self._queue)
            finally:
                await let_go(binding)
        except amqp.ChannelClosed as error:
            if error.code == MISSING:
                raise LinkLost(str(error)) from None
        except (LinkClosed, BrokerUnreachable) as error:
            raise LinkLost(str(error)) from None

    async def _end_late_consumer(self, channel: amqp.Channel) -> None:
        """End a consumer that was being made when ``stop`` came, and give back what it got."""
        if self._consumer_tag is not None:
            await channel.cancel(self._consumer_tag)
            self._consumer_tag = None
            late = list(self._arrived)
            self._arrived.clear()
            await self.requeue(late)
            self._tell()

    async def _begin(self, channel: amqp.Channel) -> int:
        """Consume for the first time on a channel; return the prefetch."""
        try:
            if self._queue.exclusive:
                await declare(channel, self._queue)
            granted = await self._consume(channel)
        except amqp.ChannelClosed as error:
            if error.code == FORBIDDEN:
                raise AccessRefused(f"queue {self._queue.name!r} may not be consumed: {error}") from None
            if error.code == DIFFERENT:
                raise refused(self._queue, error, "cannot be consumed") from None
            raise
        if self._was_lost:
            self.reconnects += 1
        self._was_lost = self._locked = False
        self._change.notify()
        return granted

    async def _first(self, closed: asyncio.Future[amqp.ChannelClosed | amqp.ConnectionLost]) -> bool:
        """Wait for the end of the channel, or for a reason to look; return whether there was any in good time."""
        looking = asyncio.ensure_future(self._look.wait())
        timeout = self.rebind if self._queue.exclusive else self.quiet
        try:
            done, _ = await asyncio.wait((looking, closed), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            looking.cancel()
        self._look.clear()
        return bool(done)

    async def _consume(self, channel: amqp.Channel) -> int:
        """Consume with the prefetch allowed now, which is returned: a consumer keeps the one it was made with.

        What an earlier consumer of this channel holds does not count, so while a prefetch grows up to twice as much may
        be out.
        """
        granted = self._allowed
        stream = {"x-stream-offset": self._offset if self._offset is not None else "next"}
        await channel.qos(granted)
        self._consumer_tag = await channel.consume(
            self._queue.name,
            partial(self._on_deliveries, self._session),
            arguments=stream if self._queue.stream else None,
        )
        return granted

    def _on_cancel(self, _: str) -> None:
        """The broker ended the consumer: the queue was deleted, or its leader is gone."""
        self._cancelled = True
        self._look.set()

    def _on_deliveries(self, session: int, deliveries: list[amqp.Arrived]) -> None:
        if session != self._session or self._channel is None:
            return  # late, from a channel that is gone: they will come again
        name, stream, base = self._queue.name, self._queue.stream, session * SESSION
        for arrived in deliveries:
            tag, offset = arrived.tag, None
            if stream and (offset := offset_of(arrived, self._offset)) is not None:
                self._offset = offset + 1
            self._open[tag] = None
            self._arrived.append(
                Delivery(
                    name,
                    arrived.body,
                    base + tag,
                    redelivered=arrived.redelivered,
                    exchange=arrived.exchange,
                    key=arrived.key,
                    offset=offset,
                    properties=partial(read, arrived),
                )
            )
        self._newest = deliveries[-1].tag
        self._last = base + self._newest
        self._wake.set()

    def _lost(self, error: Exception) -> None:
        """A consumer that worked has died."""
        name = self._queue.name
        logger.warning("queue %s: %s", name, error, extra={"action": "consumer_lost", "queue": name})
        self._begin_carefully()

    def _begin_carefully(self) -> None:
        """The next channel begins with a prefetch of 1, if a delivery limit counts what goes back."""
        self._was_lost = True
        if self._slow_start:
            self._allowed = 1

    def _end_session(self) -> None:
        self._channel = self._consumer_tag = None
        self._open.clear()
        # What a stream has delivered stays: it goes on behind it. So does what a queue had that is gone with the rest.
        if not (self._queue.stream or self._cancelled):
            self._arrived.clear()
            self._last = 0
        self._change.notify()

    async def _let_go(self, channel: amqp.Channel) -> None:
        """Give back what is unacknowledged by closing the channel, and end an exclusive queue."""
        if self._queue.exclusive and not channel.is_closed:
            try:
                async with asyncio.timeout(CLOSE):
                    await delete(channel, self._queue)
            except (*GONE, TimeoutError):
                pass
        await let_go(channel)
