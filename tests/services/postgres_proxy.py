"""A TCP proxy before PostgreSQL that reads the messages of the protocol: it stalls, cuts, and drops around COMMIT."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

TLS, GSS = 80877103, 80877104  # requests to encrypt, which the proxy declines: it has to read what follows


class PostgresProxy:
    """Stands on a port of its own before a server of this machine.

    Args:
        url: of a database on that server.
        seed: of what is dropped.
    """

    def __init__(self, url: str, *, seed: int = 0) -> None:
        self._target = urlsplit(url)
        self._random = random.Random(seed)
        self._pumps: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._lose = 0.0
        self._refusing = False
        self.flowing = asyncio.Event()  # set while every byte passes
        self.flowing.set()
        self.not_stalled = asyncio.Event()  # set while transactions may begin
        self.not_stalled.set()
        self.stalled = asyncio.Event()  # set once a transaction waits to begin
        self.commits = self.dropped_before = self.dropped_after = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The same database, reached through the proxy."""
        login, _, _ = self._target.netloc.rpartition("@")
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()

    def stall(self) -> None:
        """From now on deliver nothing in either direction, on new connections too: a black hole."""
        self.flowing.clear()

    def stall_transactions(self) -> None:
        """From now on let no transaction begin and no connection be made: a black hole that leaves no locks behind."""
        self.stalled.clear()
        self.not_stalled.clear()

    def cut(self) -> None:
        """Reset all connections, and from now on each new one."""
        self._refusing = True
        for pump in self._pumps:
            pump.cancel()

    def restore(self) -> None:
        """From now on deliver everything."""
        self._refusing, self._lose = False, 0.0
        self.flowing.set()
        self.not_stalled.set()

    def lose_commits(self, share: float) -> None:
        """From now on drop the connection around this share of the COMMITs of transactions that write.

        Half of these are dropped before the server gets them, and half after it has committed, before its answer.
        """
        self._lose = share

    def draw(self) -> str:
        """What happens to a COMMIT: it is dropped ``before`` or ``after``, or passes."""
        self.commits += 1
        if self._random.random() >= self._lose:
            return ""
        return self._random.choice(("before", "after"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._relay(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection(self._target.hostname, self._target.port or 5432)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, (reader, writer), server)
        pumps = {asyncio.create_task(connection.requests()), asyncio.create_task(connection.answers())}
        self._pumps |= pumps
        if self._refusing:
            self.cut()
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        self._pumps -= pumps
        for each in (writer, server[1]):
            each.transport.abort()


class _Connection:
    """One connection: two pumps, each ends with the connection, or when it is to be dropped."""

    def __init__(
        self, proxy: PostgresProxy, client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:  # fmt: skip
        self._proxy, self._client, self._server = proxy, client, server
        self._prepared: set[bytes] = set()  # names of statements that are COMMIT
        self._reading = False  # whether the transaction is read-only
        self._dropping = False  # the answer to the COMMIT under way

    async def requests(self) -> None:
        """From client to server."""
        reader, writer = self._client[0], self._server[1]
        with suppress(OSError, EOFError):
            await self._start(reader, writer)
            while True:
                kind, frame = await _read(reader)
                if _is_begin(kind, frame):
                    self._reading = b"READ ONLY" in frame
                    if not self._proxy.not_stalled.is_set():
                        self._proxy.stalled.set()
                    await self._proxy.not_stalled.wait()
                if self._commits(kind, frame) and not self._reading:
                    fate = self._proxy.draw()
                    if fate == "before":
                        self._proxy.dropped_before += 1
                        return
                    self._dropping = fate == "after"
                await self._proxy.flowing.wait()
                writer.write(kind + frame)
                await writer.drain()

    async def answers(self) -> None:
        """From server to client."""
        reader, writer = self._server[0], self._client[1]
        with suppress(OSError, EOFError):
            while True:
                kind, frame = await _read(reader)
                if self._dropping and kind == b"C" and frame[4:] == b"COMMIT\0":
                    self._proxy.dropped_after += 1
                    return
                if kind == b"Z":  # ready for the next request
                    self._dropping = False
                await self._proxy.flowing.wait()
                writer.write(kind + frame)
                await writer.drain()

    async def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on the first message, which has no type."""
        while True:
            size = await reader.readexactly(4)
            rest = await reader.readexactly(int.from_bytes(size) - 4)
            await self._proxy.not_stalled.wait()
            await self._proxy.flowing.wait()
            if int.from_bytes(rest[:4]) not in (TLS, GSS):
                writer.write(size + rest)
                return
            self._client[1].write(b"N")

    def _commits(self, kind: bytes, frame: bytes) -> bool:
        """Whether this message executes COMMIT: as text, or as a prepared statement."""
        words = frame[4:].split(b"\0")
        if kind == b"P":
            (self._prepared.add if words[1] == b"COMMIT" else self._prepared.discard)(words[0])
        return (kind == b"Q" and words[0] == b"COMMIT") or (kind == b"B" and words[1] in self._prepared)


def _is_begin(kind: bytes, frame: bytes) -> bool:
    return kind == b"Q" and frame[4:].startswith(b"BEGIN")


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A message: its type, and its length with what follows."""
    kind = await reader.readexactly(1)
    size = await reader.readexactly(4)
    return kind, size + await reader.readexactly(int.from_bytes(size) - 4)
