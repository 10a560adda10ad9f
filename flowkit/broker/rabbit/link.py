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

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed
from yarl import URL

from flowkit.broker.address import mask
from flowkit.broker.change import Change
from flowkit.broker.rabbit.connection import OPEN, Connection, abandon, open_channel
from flowkit.broker.rabbit.faults import LinkClosed, LinkLost, guard, poisonous
from flowkit.errors import BrokerUnreachable

WATCH = 5.0  # seconds between looks at a quiet connection, and for each look to be answered

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
        refusal_patience: seconds of nothing but refusals (login, virtual host) after which it gives up for good.
    """

    def __init__(self, url: str, *, name: str, heartbeat: float, refusal_patience: float) -> None:
        address = URL(url)
        asked = {"heartbeat": str(max(1, round(heartbeat)))} if "heartbeat" not in address.query else {}
        self._url = address.update_query(asked)
        self._properties: dict[str, Any] = {
            "connection_name": name,
            "product": "FlowKit",
            "version": version("flowkit-mq"),
        }
        self._shown, self._name, self._refusal_patience = mask(url), name, refusal_patience
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self.change = Change()
        self.generation = 0
        self.trouble: BrokerUnreachable | None = None  # why the last attempt to connect failed
        self.poisoned = False  # the last life ended by a frame that cannot be decoded

    @property
    def up(self) -> bool:
        """Whether the connection stands, and the broker takes messages on it."""
        return self._connection is not None and not self._connection.blocked

    def start(self) -> None:
        """Begin to connect, and never stop until ``close`` or until it is refused for good."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen: all who wait for the link get it, and there may be nobody
        self.change.notify()

    async def connection(self) -> Connection:
        """The connection, as soon as it stands.

        Raises:
            LinkClosed: ``close`` was called.
            BrokerUnreachable: it was refused for too long.
        """
        self.start()
        while self._connection is None:
            self._fail_if_ended()
            await self.change.wait()
        return self._connection

    async def unblocked(self) -> Connection:
        """The connection, as soon as it stands and the broker takes messages on it."""
        while True:
            connection = await self.connection()
            if not connection.blocked:
                return connection
            # aio-pika has no word for an alarm, so it is the underlay that is asked and waited for.
            ready, gone = asyncio.ensure_future(connection.underlay.ready()), connection.underlay.closing
            try:
                await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()

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
        waits, refused_since = pauses(), None
        while True:
            began = asyncio.get_running_loop().time()
            try:
                connection = await aio_pika.connect(
                    self._url, client_properties=self._properties, connection_class=Connection, timeout=OPEN
                )
            except BrokerUnreachable as trouble:
                refused_since = (refused_since or began) if trouble.final else None
                self._note(trouble)
                if refused_since is not None and began - refused_since > self._refusal_patience:
                    logger.error(  # noqa: TRY400 - the reason has been said, and a traceback says less
                        "%s gives up", self._name, extra={"action": "link_given_up", "link": self._name}
                    )
                    raise
                await asyncio.sleep(next(waits))
                continue
            refused_since = None
            since = self._take(connection)
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

    def _note(self, trouble: BrokerUnreachable) -> None:
        """An attempt has failed; the same reason is said once."""
        if self.trouble is None or self.trouble.why != trouble.why:
            logger.warning("%s: %s", self._name, trouble, extra={"action": "link_refused", "link": self._name})
        self.trouble = trouble
        self.change.notify()

    def _take(self, connection: Connection) -> float:
        """An attempt has succeeded; return when."""
        if self.generation:
            logger.info("%s is back", self._name, extra={"action": "link_back", "link": self._name})
        self._connection, self.trouble = connection, None
        self.generation += 1
        self.change.notify()
        return asyncio.get_running_loop().time()

    async def _watch(self, connection: Connection) -> str:
        """Return why the connection is lost; a half-open one is found by asking it something now and then."""
        # aio-pika's close_callbacks stay silent on a connection that is closed already; this future does not.
        closing, loop = connection.underlay.closing, asyncio.get_running_loop()
        channel: AbstractChannel | None = None
        while True:
            await asyncio.wait((closing,), timeout=WATCH)
            if closing.done():
                error = None if closing.cancelled() else closing.exception()
                self.poisoned = poisonous(error)
                return repr(error)
            if connection.blocked:
                continue  # the broker does not read from it now, so it cannot answer; heartbeats still watch
            asked = loop.time()
            try:
                async with asyncio.timeout(WATCH):
                    channel = channel or await open_channel(connection, confirms=False)
                    with guard():
                        await channel.set_qos(1)  # nobody consumes on it: a question without consequences
            except TimeoutError:
                channel = None  # closed by the question that was broken off
                if loop.time() - asked < 1.2 * WATCH:  # longer: it was this loop that stood still
                    self.poisoned = False
                    return f"no answer in {WATCH:g} s"
            except (LinkLost, ChannelClosed) as error:
                self.poisoned = False
                return str(error)


async def _nothing() -> None:
    """The task of a link that was closed before it began."""
