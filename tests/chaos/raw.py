"""AMQP 0-9-1 as no library would write it: a publisher that takes the bytes of properties as they are given."""

from __future__ import annotations

import asyncio
import struct
from typing import Self
from urllib.parse import urlsplit

FLAGS = {
    "content_type": 15, "content_encoding": 14, "headers": 13, "delivery_mode": 12, "priority": 11,
    "correlation_id": 10, "reply_to": 9, "expiration": 8, "message_id": 7, "timestamp": 6, "type": 5, "user_id": 4,
    "app_id": 3,
}  # fmt: skip
FRAME = 100_000  # bytes of body in a frame: under what brokers allow


def short(value: bytes) -> bytes:
    """A short string."""
    return bytes([len(value)]) + value


def table(fields: bytes) -> bytes:
    """A table, from its encoded fields."""
    return struct.pack(">I", len(fields)) + fields


def text(name: bytes, value: bytes) -> bytes:
    """A field with a long string."""
    return short(name) + b"S" + struct.pack(">I", len(value)) + value


def nested(depth: int) -> bytes:
    """A table in a table in a table."""
    inner = b""
    for _ in range(depth):
        inner = short(b"n") + b"F" + table(inner)
    return table(inner)


class RawPublisher:
    """One connection and one channel with confirms, opened again when the broker ends them.

    Args:
        url: ``amqp://user:password@host:port/``.
    """

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def publish(self, exchange: str, key: str, properties: dict[str, bytes], body: bytes) -> bool:
        """Publish; whether the broker has taken it."""
        try:
            async with asyncio.timeout(20):
                if self._writer is None:
                    await self._open()
                flags = sum(1 << FLAGS[name] for name in properties)
                ordered = b"".join(properties[name] for name in FLAGS if name in properties)
                self._method(1, 60, 40, struct.pack(">H", 0) + short(exchange.encode()) + short(key.encode()) + b"\0")
                self._frame(2, 1, struct.pack(">HHQH", 60, 0, len(body), flags) + ordered)
                for first in range(0, len(body), FRAME):
                    self._frame(3, 1, body[first : first + FRAME])
                await self._writing.drain()
                return await self._until((60, 80), (60, 120)) == (60, 80)
        except (OSError, EOFError, TimeoutError):
            self._close()
            return False

    @property
    def _writing(self) -> asyncio.StreamWriter:
        assert self._writer is not None
        return self._writer

    async def _open(self) -> None:
        where = self._address
        self._reader, self._writer = await asyncio.open_connection(where.hostname, where.port)
        self._writer.write(b"AMQP\x00\x00\x09\x01")
        await self._until((10, 10))
        login = f"\0{where.username}\0{where.password}".encode()
        response = struct.pack(">I", len(login)) + login
        self._method(0, 10, 11, table(b"") + short(b"PLAIN") + response + short(b"en_US"))
        await self._until((10, 30))
        self._method(0, 10, 31, struct.pack(">HIH", 1, FRAME + 8, 0))
        self._method(0, 10, 40, short(b"/") + b"\0\0")
        await self._until((10, 41))
        self._method(1, 20, 10, b"\0")
        await self._until((20, 11))
        self._method(1, 85, 10, b"\0")
        await self._until((85, 11))

    async def _until(self, *wanted: tuple[int, int]) -> tuple[int, int]:
        while True:
            kind, _, size = struct.unpack(">BHI", await self._reader.readexactly(7))
            payload = (await self._reader.readexactly(size + 1))[:-1]
            if kind != 1:
                continue
            method = struct.unpack(">HH", payload[:4])
            if method in wanted:
                return method
            if method in ((10, 50), (20, 40)):  # the broker closes
                raise EOFError

    def _method(self, channel: int, kind: int, method: int, arguments: bytes) -> None:
        self._frame(1, channel, struct.pack(">HH", kind, method) + arguments)

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self._writing.write(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
