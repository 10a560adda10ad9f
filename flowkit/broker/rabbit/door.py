"""The socket to a broker, and what is heard through it before there is a connection."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

METHOD_FRAME, PROTOCOL_HEADER = b"\x01", b"A"  # all that a broker may begin with


class NotAmqp(Exception):
    """Something else answers there; waiting for the rest of its first frame could take for ever."""


class Door(TransportFactory):
    """Opens the socket, and keeps the last bytes that came through it.

    Args:
        scheme: ``amqp`` or ``amqps``.
    """

    def __init__(self, scheme: str) -> None:
        self._transport = TLSTransportFactory() if scheme == "amqps" else TCPTransportFactory()
        self.heard = b""

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open it."""
        reader, writer = await self._transport.create(url, **kwargs)
        return cast("asyncio.StreamReader", _Ear(reader, self)), writer


class _Ear:
    """The three methods of a reader that the library uses."""

    def __init__(self, reader: asyncio.StreamReader, door: Door) -> None:
        self._reader, self._door = reader, door
        self.read, self.at_eof = reader.read, reader.at_eof

    async def readexactly(self, count: int) -> bytes:
        heard = await self._reader.readexactly(count)
        if not self._door.heard and heard not in (METHOD_FRAME, PROTOCOL_HEADER):
            raise NotAmqp(f"it begins with {heard!r}")
        self._door.heard = heard
        return heard
