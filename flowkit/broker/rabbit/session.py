"""A connection for messages, by FlowKit's own data path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from flowkit import amqp
from flowkit.addresses import without_query
from flowkit.broker.rabbit.faults import CLOSE, OPEN, LinkLost, cluster_name, unreachable
from flowkit.errors import BrokerUnreachable


class Session:
    """One connection, from being made to its end. ``Link`` makes the next one.

    Args:
        connection: open.
    """

    def __init__(self, connection: amqp.Connection) -> None:
        self._connection = connection
        self._asking: amqp.Channel | None = None

    @classmethod
    async def open(cls, url: str, *, heartbeat: int, properties: Mapping[str, object]) -> Session:
        """Connect, or raise ``BrokerUnreachable``; see ``link.Open``."""
        try:
            address = amqp.Address.parse(url)
        except (ValueError, OSError) as error:  # the files of certificates may be in the middle of being renewed
            raise BrokerUnreachable(without_query(url), str(error), final=not isinstance(error, OSError)) from None
        try:
            async with asyncio.timeout(OPEN):
                return cls(await amqp.connect(address, heartbeat=heartbeat, properties=properties))
        except (amqp.AmqpError, OSError, EOFError) as error:  # TimeoutError and the errors of TLS are OSErrors
            raise unreachable(url, error) from error
        except ValueError as error:  # a host or a virtual host that cannot be written
            raise BrokerUnreachable(without_query(url), str(error), final=True) from error

    @property
    def server_properties(self) -> Mapping[str, object]:
        """What the broker says of itself."""
        return self._connection.server_properties

    @property
    def cluster_name(self) -> str | None:
        """The name of the broker's cluster, as it says itself."""
        return cluster_name(self.server_properties)

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages on it because of an alarm."""
        return self._connection.blocked

    @property
    def blocked_reason(self) -> str | None:
        """What the broker says of the alarm, such as ``low on memory``."""
        return self._connection.blocked_reason

    def notify_blocked(self, callback: Callable[[], None]) -> None:
        """Call this whenever ``blocked_reason`` changes."""
        self._connection.on_blocked = callback

    @property
    def ended(self) -> asyncio.Future[amqp.ConnectionLost]:
        """Done when it has ended."""
        return self._connection.closed

    def why(self) -> str:
        """Why it has ended."""
        return str(self._connection.closed.result())

    async def unblocked(self) -> None:
        """Return when the broker takes messages.

        Raises:
            LinkLost
        """
        try:
            await self._connection.unblocked()
        except amqp.ConnectionLost as error:
            raise LinkLost(str(error)) from None

    async def channel(self, *, confirms: bool = False) -> amqp.Channel:
        """Open a channel.

        Raises:
            LinkLost
        """
        try:
            async with asyncio.timeout(OPEN):
                return await self._connection.channel(confirms=confirms)
        except (amqp.ConnectionLost, amqp.ChannelClosed, TimeoutError) as error:
            raise LinkLost(str(error) or f"no channel in {OPEN:g} s") from error

    async def probe(self) -> None:
        """Ask something without consequences.

        Raises:
            LinkLost
        """
        try:
            if self._asking is None or self._asking.is_closed:
                self._asking = await self.channel()
            await self._asking.qos(1)  # nobody consumes on it
        except (amqp.ConnectionLost, amqp.ChannelClosed) as error:
            raise LinkLost(str(error)) from None

    async def abandon(self) -> None:
        """Close it within 3 s, or leave it to its fate."""
        try:
            async with asyncio.timeout(CLOSE):
                await self._connection.close()
        except (amqp.AmqpError, TimeoutError):
            pass
        finally:
            self._connection.abort()


async def let_go(channel: amqp.Channel) -> None:
    """Close a channel within 3 s, or leave it to the end of its connection."""
    try:
        async with asyncio.timeout(CLOSE):
            await channel.close()
    except (amqp.AmqpError, TimeoutError):
        pass
