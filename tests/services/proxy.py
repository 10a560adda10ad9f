"""A TCP proxy that misbehaves on request: a black hole, one way or both, a reset, a slow line."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Stands on a port of its own before a service of this machine.

    Args:
        port: where the service listens.
    """

    def __init__(self, port: int) -> None:
        self._service = port
        self._to_service, self._to_client = asyncio.Event(), asyncio.Event()  # set while bytes flow
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.connections = 0
        self.flow()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.reset()
        self.flow()
        await self._server.wait_closed()

    def lead_to(self, port: int) -> None:
        """Connect new connections to another service; those that are there go on."""
        self._service = port

    def swallow(self, *, to_service: bool = True, to_client: bool = True) -> None:
        """From now on take every byte and deliver none, as a broken network does; one way only, if asked."""
        for flowing, swallowed in ((self._to_service, to_service), (self._to_client, to_client)):
            if swallowed:
                flowing.clear()

    def slow(self, delay: float = 0.2) -> None:
        """From now on each piece takes ``delay`` seconds."""
        self._delay = delay

    def flow(self) -> None:
        """Deliver again and at once, what was held back first."""
        self._delay = 0
        self._to_service.set()
        self._to_client.set()

    def reset(self) -> None:
        """Cut all connections at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._service)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, out_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._pump(reader, out_writer, self._to_service), self._pump(out_reader, writer, self._to_client)
            )
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self._delay)
                await flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
