"""A supervised connection: made, watched, and made again.

connect with a timeout -> wait for the first of {closed, watchdog} -> close within 3 s or abandon -> back off -> connect
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import aiormq
from yarl import URL

from flowkit.broker.address import mask
from flowkit.broker.change import Change
from flowkit.broker.rabbit.door import Door
from flowkit.broker.rabbit.faults import LinkClosed, LinkLost, guard, poisonous, unreachable
from flowkit.errors import BrokerUnreachable

CONNECT = 10.0  # seconds for a connection to be made
WATCH = 5.0  # seconds between looks at a quiet connection, and for each look to be answered
CLOSE = 3.0  # seconds for a polite end: closing can deadlock (aiormq#83)

logger = logging.getLogger(__name__)


def pauses(first: float = 0.1, most: float = 5.0) -> Iterator[float]:
    """Seconds to wait between attempts: doubled each time, with jitter, so that a fleet does not return as one."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        pause = min(most, pause * 2)


class Link:
    """One connection to RabbitMQ, over all its lives.

    Args:
        url: the address, with the password.
        name: what the broker's connection list shows, such as ``flowkit publish``.
        heartbeat: seconds.
    """

    def __init__(self, url: str, *, name: str, heartbeat: float) -> None:
        address = URL(url)
        asked = {"heartbeat": str(max(1, round(heartbeat)))} if "heartbeat" not in address.query else {}
        self._url = address.update_query(asked)
        self._properties: dict[str, Any] = {
            "connection_name": name,
            "product": "FlowKit",
            "version": version("flowkit-mq"),
        }
        self._shown, self._name = mask(url), name
        self._task: asyncio.Task[None] | None = None
        self._connection: aiormq.Connection | None = None
        self.change = Change()
        self.generation = 0
        self.trouble: BrokerUnreachable | None = None  # why the last attempt to connect failed
        self.poisoned = False  # the last life ended by a frame that cannot be decoded

    @property
    def up(self) -> bool:
        """Whether the connection stands, and the broker takes messages on it."""
        return self._connection is not None and not blocked(self._connection)

    def start(self) -> None:
        """Begin to connect, and never stop until ``close``."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)
            self._task.add_done_callback(lambda _: self.change.notify())

    async def connection(self) -> aiormq.Connection:
        """The connection, as soon as it stands.

        Raises:
            LinkClosed: ``close`` was called.
        """
        self.start()
        while self._connection is None:
            self._fail_if_ended()
            await self.change.wait()
        return self._connection

    async def unblocked(self) -> aiormq.Connection:
        """The connection, as soon as it stands and the broker takes messages on it."""
        while True:
            connection = await self.connection()
            if not blocked(connection):
                return connection
            ready, gone = asyncio.ensure_future(connection.ready()), connection.closing
            try:
                await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()
                gone.cancel()

    async def attempt(self, timeout: float) -> None:
        """Connect within ``timeout`` seconds, or say why not.

        Raises:
            BrokerUnreachable
        """
        self.start()
        try:
            async with asyncio.timeout(timeout):
                while self._connection is None:
                    self._fail_if_ended()
                    if self.trouble is not None and self.trouble.final:
                        raise self.trouble
                    await self.change.wait()
        except TimeoutError:
            raise self.trouble or BrokerUnreachable(self._shown, f"no answer in {timeout:g} s") from None

    async def close(self) -> None:
        """End the connection and its supervision."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(_nothing())
        self._task.cancel()
        await asyncio.wait((self._task,))
        self.change.notify()

    def _fail_if_ended(self) -> None:
        assert self._task is not None
        if self._task.done():
            if not self._task.cancelled():
                self._task.result()  # an error of ours: whoever waits for the link gets it
            raise LinkClosed("the broker was closed")

    async def _run(self) -> None:
        waits = pauses()
        while True:
            try:
                connection = await self._open()
            except BrokerUnreachable as trouble:
                if self.trouble is None or self.trouble.why != trouble.why:
                    logger.warning("%s: %s", self._name, trouble, extra={"action": "link_refused", "link": self._name})
                self.trouble = trouble
                self.change.notify()
                await asyncio.sleep(next(waits))
                continue
            if self.generation:
                logger.info("%s is back", self._name, extra={"action": "link_back", "link": self._name})
            self._connection, self.trouble = connection, None
            self.generation += 1
            self.change.notify()
            since = asyncio.get_running_loop().time()
            try:
                why = await self._watch(connection)
            finally:
                self._connection = None
                self.change.notify()
                await abandon(connection)
            logger.warning("%s lost: %s", self._name, why, extra={"action": "link_lost", "link": self._name})
            # A frame that kills connections is got over by taking it again and again, so that is done fast.
            if self.poisoned or asyncio.get_running_loop().time() - since > WATCH:
                waits = pauses()
            await asyncio.sleep(next(waits))

    async def _open(self) -> aiormq.Connection:
        door = Door(self._url.scheme)
        connection = aiormq.Connection(self._url, client_properties=self._properties, transport_factory=door)
        try:
            async with asyncio.timeout(CONNECT):
                with guard():
                    await connection.connect()
        except TimeoutError as error:
            raise unreachable(self._shown, error, door.heard) from None
        except LinkLost as error:
            raise unreachable(self._shown, error.__cause__ or error, door.heard) from error
        return connection

    async def _watch(self, connection: aiormq.Connection) -> str:
        """Return why the connection is lost; a half-open one is found by asking it for a channel now and then."""
        closing, loop = connection.closing, asyncio.get_running_loop()
        try:
            while True:
                await asyncio.wait((closing,), timeout=WATCH)
                if closing.done():
                    error = None if closing.cancelled() else closing.exception()
                    self.poisoned = poisonous(error)
                    return repr(error)
                if blocked(connection):
                    continue  # the broker does not read from it now, so it cannot answer; heartbeats still watch
                asked = loop.time()
                try:
                    async with asyncio.timeout(WATCH):
                        await close_channel(await open_channel(connection, confirms=False))
                except TimeoutError:
                    if loop.time() - asked < 1.2 * WATCH:  # longer: it was this loop that stood still
                        self.poisoned = False
                        return f"no answer in {WATCH:g} s"
                except LinkLost as error:
                    self.poisoned = False
                    return str(error)
        finally:
            closing.cancel()


def blocked(connection: aiormq.Connection) -> bool:
    """Whether the broker has blocked this connection because of an alarm.

    aiormq tells only who waits for the end of it, so this takes the first step of that wait and no second one.
    """
    wait = connection.ready().__await__()
    try:
        next(wait)
    except StopIteration:
        return False
    wait.close()
    return True


async def open_channel(connection: aiormq.Connection, *, confirms: bool) -> aiormq.Channel:
    """Open a channel; messages without a queue raise on it.

    Raises:
        LinkLost
    """
    with guard():
        channel = await connection.channel(publisher_confirms=confirms, on_return_raises=True)
        assert isinstance(channel, aiormq.Channel)
        return channel


async def close_channel(channel: aiormq.Channel) -> None:
    """Close a channel within 3 s, or leave it to the end of its connection."""
    try:
        async with asyncio.timeout(CLOSE):
            with guard():
                await channel.close()
    except (LinkLost, TimeoutError, aiormq.ChannelClosed):
        pass


async def abandon(connection: aiormq.Connection) -> None:
    """Close a connection within 3 s, or leave it to its fate."""
    try:
        async with asyncio.timeout(CLOSE):
            with guard():
                await connection.close()
    except (LinkLost, TimeoutError):
        pass


async def _nothing() -> None:
    """The task of a link that was closed before it began."""
