"""One connection by aio-pika, its channels, and the little that only its underlay can do."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, UnderlayConnection
from aio_pika.tools import OneShotCallback
from aiormq.abc import AbstractChannel as UnderlayChannel
from yarl import URL

from flowkit.broker.address import mask
from flowkit.broker.rabbit.door import Door
from flowkit.broker.rabbit.faults import LinkLost, guard, unreachable

OPEN = 10.0  # seconds for a connection or a channel to be opened
CLOSE = 3.0  # seconds for a polite end: closing can deadlock (aiormq#83)


class Underlay(aiormq.Connection):
    """aiormq's connection with one future for its end, where aiormq 7.2 makes another one at each look.

    aio-pika 10.2 hangs a callback of every channel on it and takes it off when the channel closes. From another future
    nothing can be taken off: 4 kB stay for each channel that ever was.
    """

    def __init__(self, url: URL, **options: Any) -> None:
        super().__init__(url, **options)
        self._end = super().closing

    @property
    def closing(self) -> asyncio.Future[Any]:
        """Done when the connection is; not to be cancelled by those who wait."""
        return self._end


class Connection(aio_pika.Connection):
    """aio-pika's plain connection on our underlay, for ``aio_pika.connect(…, connection_class=Connection)``."""

    async def connect(self, timeout: float | None = None) -> None:
        """Connect within ``timeout`` seconds, or say why not.

        Raises:
            BrokerUnreachable
        """
        door = Door(self.url.scheme)
        underlay = Underlay(self.url, transport_factory=door, **self.kwargs)
        try:
            async with asyncio.timeout(timeout):
                with guard():
                    await underlay.connect()
            ended = OneShotCallback(self._on_connection_close)
            underlay.closing.add_done_callback(ended)
            self.transport = UnderlayConnection(underlay, ended)
            await self._on_connected()
        except (TimeoutError, LinkLost) as error:
            raise unreachable(mask(str(self.url)), error.__cause__ or error, door.heard) from error
        finally:
            if self.transport is None:
                await self.close()  # waits for nothing, only marks it; unmarked, its __del__ would start a task

    @property
    def underlay(self) -> Underlay:
        """The aiormq connection.

        Raises:
            LinkLost: it was closed.
        """
        if self.transport is None:
            raise LinkLost("the connection was closed")
        return cast("Underlay", self.transport.connection)

    @property
    def blocked(self) -> bool:
        """Whether the broker has blocked this connection because of an alarm.

        aiormq tells only who waits for the end of it, so this takes the first step of that wait and no second one.
        """
        if self.transport is None:
            return False
        wait = self.underlay.ready().__await__()
        try:
            next(wait)
        except StopIteration:
            return False
        wait.close()
        return True


async def open_channel(connection: Connection, *, confirms: bool) -> AbstractChannel:
    """Open a channel; with confirms, messages without a queue raise on it.

    Raises:
        LinkLost
    """
    with guard():
        async with asyncio.timeout(OPEN):  # opening waits for the end of an alarm, also when the connection has died
            return await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)


async def open_underlay_channel(connection: Connection) -> UnderlayChannel:
    """Open a channel for one question.

    Not by aio-pika 10.2: a channel that the broker closes leaves a callback on the connection for as long as that
    lives, and what is asked for again and again, for weeks, is what is missing.

    Raises:
        LinkLost
    """
    with guard():
        async with asyncio.timeout(OPEN):
            return await connection.underlay.channel(publisher_confirms=False)


async def close_channel(channel: AbstractChannel | UnderlayChannel) -> None:
    """Close a channel within 3 s, or leave it to the end of its connection."""
    try:
        with guard():
            async with asyncio.timeout(CLOSE):
                await channel.close()
    except (LinkLost, aiormq.ChannelClosed):
        pass


async def abandon(connection: Connection) -> None:
    """Close a connection within 3 s, or leave it to its fate."""
    closing = asyncio.create_task(connection.close())
    for patience in (CLOSE, 0.1, 0.1):  # cancelled once, aio-pika waits for its close callback all the same
        await asyncio.wait((closing,), timeout=patience)
        if closing.done():
            break
        closing.cancel()
    if closing.done() and not closing.cancelled():
        closing.exception()  # looked at; it is abandoned whatever it says
    await connection.close()  # marks it as closed where the first try was cancelled
