"""One connection by aio-pika, its channels, and the little that only its underlay can do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, UnderlayConnection
from aio_pika.tools import OneShotCallback
from aiormq.abc import AbstractChannel as UnderlayChannel
from aiormq.exceptions import ChannelClosed
from yarl import URL

from flowkit import amqp
from flowkit.broker.rabbit import faults
from flowkit.broker.rabbit.door import Door
from flowkit.broker.rabbit.faults import CLOSE, OPEN, LinkLost, cancel_requests
from flowkit.errors import BrokerUnreachable, FlowKitError

ANSWER = 15.0  # seconds for the broker to answer one question


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
            raise _unreachable(str(self.url), error.__cause__ or error, door.heard) from error
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


async def open_channel(connection: Connection) -> AbstractChannel:
    """Open a channel to declare on.

    Raises:
        LinkLost
    """
    with guard():
        async with asyncio.timeout(OPEN):
            return await connection.channel(publisher_confirms=False)


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
    except (LinkLost, ChannelClosed):
        pass


@contextmanager
def guard() -> Iterator[None]:
    """Turn what the library raises when a connection dies into ``LinkLost``; answers of the broker pass as they are.

    A dying connection fails its callers with whatever killed it: an error of decoding, a bare ``Exception``, even a
    ``CancelledError`` that nobody sent. A real one raises the number of cancel requests of the asyncio task between
    entering and now. The number alone says nothing: others may have left it above zero, such as a ``TaskGroup`` that
    failed (Python 3.11 and 3.12), or a cancellation after which the task closes what it had.

    The library also replaces a real one, by the error of a connection that dies at the same moment, by an answer of
    the broker, or by nothing. The request is honoured all the same: whoever cancels once and waits would otherwise
    wait for ever.
    """
    before = cancel_requests()
    try:
        yield
    except asyncio.CancelledError as error:
        if cancel_requests() > before:
            raise
        raise LinkLost("the connection died") from error
    except Exception as error:
        if cancel_requests() > before:
            raise asyncio.CancelledError from error
        if isinstance(error, ChannelClosed | aiormq.DeliveryError | LinkLost | FlowKitError):
            raise
        raise LinkLost(str(error) or type(error).__name__) from error
    if cancel_requests() > before:
        raise asyncio.CancelledError


@asynccontextmanager
async def answered(what: str) -> AsyncIterator[None]:
    """Bound one question to the broker: an answer that never comes is a lost connection to whoever asked.

    Seen once on 3.10.8, when a queue was deleted under its consumer: the broker lived, and never answered.
    """
    try:
        async with asyncio.timeout(ANSWER):
            yield
    except TimeoutError:
        raise LinkLost(f"no answer to {what} in {ANSWER:g} s") from None


def _unreachable(url: str, error: BaseException, heard: bytes) -> BrokerUnreachable:
    """Why it could not connect; ``heard`` are the last bytes that came from there."""
    # The library throws away what the broker answers when a virtual host is not to be had.
    not_allowed = re.search(rb"NOT_ALLOWED - ([ -~]+)", heard)
    match error:
        case _ if not_allowed:
            return faults.unreachable(url, amqp.NotAllowed(not_allowed[1].decode("ascii")))
        case aiormq.ProbableAuthenticationError() | aiormq.AuthenticationError():
            return faults.unreachable(url, amqp.LoginRefused("login refused"))
        case OSError() | EOFError():
            return faults.unreachable(url, error)
        case _:
            return faults.unreachable(url, amqp.NotAmqp(str(error)))
