"""A supervised connection: made, watched, and made again.

connect with a timeout -> wait for the first of {closed, watchdog} -> close within 3 s or abandon -> back off -> connect
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from flowkit.addresses import without_query
from flowkit.broker.change import Change
from flowkit.broker.rabbit.faults import LinkClosed, LinkLost
from flowkit.errors import BrokerUnreachable

WATCH = 5.0  # seconds between looks at a quiet connection, and for each look to be answered

logger = logging.getLogger(__name__)


class Life(Protocol):
    """One connection, from being made to its end."""

    @property
    def cluster_name(self) -> str | None:
        """The name of the broker's cluster, as it says itself."""

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages on it because of an alarm."""

    @property
    def blocked_reason(self) -> str | None:
        """What the broker says of the alarm; None while there is none that it knows of."""

    def notify_blocked(self, callback: Callable[[], None]) -> None:
        """Call this whenever ``blocked_reason`` changes."""

    @property
    def ended(self) -> asyncio.Future[Any]:
        """Done when it has ended; not to be cancelled by those who wait."""

    def why(self) -> str:
        """Why it has ended."""

    async def unblocked(self) -> None:
        """Return when the broker takes messages.

        Raises:
            LinkLost
        """

    async def probe(self) -> None:
        """Ask something without consequences.

        Raises:
            LinkLost
        """

    async def abandon(self) -> None:
        """Close it within 3 s, or leave it to its fate."""


L = TypeVar("L", bound=Life)
L_co = TypeVar("L_co", bound=Life, covariant=True)


class Open(Protocol[L_co]):
    """Makes a connection."""

    async def __call__(self, url: str, *, heartbeat: int, properties: Mapping[str, object]) -> L_co:
        """Connect.

        Args:
            url: the address, with the password.
            heartbeat: seconds.
            properties: what the broker shows of this client.

        Raises:
            BrokerUnreachable
        """


def pauses(first: float = 0.1, most: float = 5.0) -> Iterator[float]:
    """Seconds to wait between attempts: doubled each time, with jitter, so that a fleet does not return as one."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        pause = min(most, pause * 2)


class Link(Generic[L]):
    """One connection to RabbitMQ, over all its lives.

    Args:
        url: the address, with the password.
        open: makes a connection.
        name: what the broker's connection list shows, such as ``flowkit publish``.
        heartbeat: seconds, where the address does not say.
        refusal_patience: seconds of nothing but refusals (login, virtual host) after which it gives up for good.
        on_blocked: called when ``blocked_reason`` changes; with whether the connection has ended.
        on_connected: called with this link when a connection was made.
    """

    def __init__(
        self,
        url: str,
        open: Open[L],  # noqa: A002 - what it does
        *,
        name: str,
        heartbeat: float,
        refusal_patience: float,
        on_blocked: Callable[[bool], None] = lambda _: None,
        on_connected: Callable[[Link[L]], None] = lambda _: None,
    ) -> None:
        asked = dict(parse_qsl(urlsplit(url).query)).get("heartbeat", "")
        self._heartbeat = int(asked) if asked.isdecimal() else max(1, round(heartbeat))
        self._properties = {"connection_name": name, "product": "FlowKit", "version": version("flowkit-mq")}
        self._url, self._open = url, open
        self._name, self._refusal_patience = name, refusal_patience
        self._on_blocked, self._on_connected = on_blocked, on_connected
        self._replaced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: L | None = None
        self.change = Change()
        self.generation = 0
        self.trouble: BrokerUnreachable | None = None  # why the last attempt to connect failed

    @property
    def up(self) -> bool:
        """Whether the connection stands, and the broker takes messages on it."""
        return self._connection is not None and not self._connection.blocked

    @property
    def blocked_reason(self) -> str | None:
        """Why the broker takes no messages on the connection; None while it does, or there is none."""
        return None if self._connection is None else self._connection.blocked_reason

    @property
    def cluster_name(self) -> str | None:
        """The name of the cluster that the connection leads to; None while there is none, or it does not say."""
        return None if self._connection is None else self._connection.cluster_name

    def replace(self) -> None:
        """Close the connection, if there is one, and make a new one."""
        if self._connection is not None:
            self._replaced.set()

    def start(self) -> None:
        """Begin to connect, and never stop until ``close`` or until it is refused for good."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen: all who wait for the link get it, and there may be nobody
        self.change.notify()

    async def connection(self) -> L:
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

    async def unblocked(self) -> L:
        """The connection, as soon as it stands and the broker takes messages on it.

        Raises:
            LinkClosed, BrokerUnreachable: as ``connection``.
        """
        while (connection := await self.connection()).blocked:
            try:
                await connection.unblocked()
            except LinkLost:
                await self.change.wait()  # whoever watches over it has not seen it yet, and lets go of it next
        return connection

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
            raise self.trouble or BrokerUnreachable(without_query(self._url), f"no answer in {timeout:g} s") from None

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
                connection = await self._open(self._url, heartbeat=self._heartbeat, properties=self._properties)
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
                why = await self._watched(connection)
            finally:
                self._connection = None
                self._on_blocked(True)
                self.change.notify()
                await connection.abandon()
            logger.warning("%s lost: %s", self._name, why, extra={"action": "link_lost", "link": self._name})
            if asyncio.get_running_loop().time() - since > WATCH:
                waits = pauses()
            await asyncio.sleep(next(waits))

    async def _watched(self, connection: L) -> str:
        """Return why the connection is lost, or is to be replaced."""
        watching, replaced = asyncio.ensure_future(_watch(connection)), asyncio.ensure_future(self._replaced.wait())
        try:
            await asyncio.wait((watching, replaced), return_when=asyncio.FIRST_COMPLETED)
            return watching.result() if watching.done() else "another connection leads to another broker"
        finally:
            watching.cancel()
            replaced.cancel()

    def _note(self, trouble: BrokerUnreachable) -> None:
        """An attempt has failed; the same reason is said once."""
        if self.trouble is None or self.trouble.why != trouble.why:
            logger.warning("%s: %s", self._name, trouble, extra={"action": "link_refused", "link": self._name})
        self.trouble = trouble
        self.change.notify()

    def _note_blocked(self) -> None:
        self._on_blocked(False)
        self.change.notify()

    def _take(self, connection: L) -> float:
        """An attempt has succeeded; return when."""
        if self.generation:
            logger.info("%s is back", self._name, extra={"action": "link_back", "link": self._name})
        connection.notify_blocked(self._note_blocked)
        self._connection, self.trouble = connection, None
        self.generation += 1
        self._replaced.clear()
        self.change.notify()
        self._on_connected(self)
        return asyncio.get_running_loop().time()


async def _watch(connection: Life) -> str:
    """Return why the connection is lost; a half-open one is found by asking it something now and then."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.wait((connection.ended,), timeout=WATCH)
        if connection.ended.done():
            return connection.why()
        if connection.blocked:
            continue  # the broker does not read from it now, so it cannot answer; heartbeats still watch
        asked = loop.time()
        try:
            async with asyncio.timeout(WATCH):
                await connection.probe()
        except TimeoutError:
            if connection.blocked:
                continue  # the alarm came behind the question
            if loop.time() - asked < 1.2 * WATCH:  # longer: it was this loop that stood still
                return f"no answer in {WATCH:g} s"
        except LinkLost as error:
            return str(error)


async def _nothing() -> None:
    """The task of a link that was closed before it began."""
