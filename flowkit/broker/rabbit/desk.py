"""Where questions are asked and things declared: a connection by aio-pika."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed
from yarl import URL

from flowkit.broker.address import encode
from flowkit.broker.rabbit.connection import Connection, guard, open_channel
from flowkit.broker.rabbit.faults import CLOSE, OPEN, LinkLost, cluster_name


class Desk:
    """One connection, from being made to its end. ``Link`` makes the next one.

    Args:
        connection: open.
    """

    blocked = False  # the broker blocks those who publish
    blocked_reason = None

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.cluster_name = cluster_name(connection.underlay.server_properties)
        # aio-pika's close_callbacks stay silent on a connection that is closed already; this future does not.
        self.ended: asyncio.Future[Any] = connection.underlay.closing
        self._asking: AbstractChannel | None = None

    @classmethod
    async def open(cls, url: str, *, heartbeat: int, properties: Mapping[str, Any]) -> Desk:
        """Connect, or raise ``BrokerUnreachable``; see ``link.Open``."""
        address = URL(encode(url)).update_query(heartbeat=str(heartbeat))
        connection = await aio_pika.connect(
            address, client_properties=dict(properties), connection_class=Connection, timeout=OPEN
        )
        return cls(connection)

    def notify_blocked(self, callback: Callable[[], None]) -> None:
        """It never is."""

    def why(self) -> str:
        """Why it has ended."""
        error = None if self.ended.cancelled() else self.ended.exception()
        return str(error.args[0]) if error is not None and error.args else "it was closed"

    async def unblocked(self) -> None:
        """It always is."""

    async def probe(self) -> None:
        """Ask something without consequences, or raise ``LinkLost``."""
        channel, self._asking = self._asking, None  # a question that is broken off closes its channel
        channel = channel or await open_channel(self.connection)
        try:
            with guard():
                await channel.set_qos(1)  # nobody consumes on it
        except ChannelClosed as error:
            raise LinkLost(str(error)) from None
        self._asking = channel

    async def abandon(self) -> None:
        """Close it within 3 s, or leave it to its fate."""
        closing = asyncio.create_task(self.connection.close())
        for patience in (CLOSE, 0.1, 0.1):  # cancelled once, aio-pika waits for its close callback all the same
            await asyncio.wait((closing,), timeout=patience)
            if closing.done():
                break
            closing.cancel()
        if closing.done() and not closing.cancelled():
            closing.exception()  # looked at; it is abandoned whatever it says
        await self.connection.close()  # marks it as closed where the first try was cancelled
