"""A broker that says what the test wants, and hears what it is told."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, TypeVar

from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.frame import FrameTypes, marshal, unmarshal
from pamqp.header import ContentHeader

from flowkit.amqp import Address, Channel, Connection, connect

Kind = TypeVar("Kind", bound=Frame)
START = commands.Connection.Start(server_properties={"product": "Scripted"}, mechanisms="PLAIN AMQPLAIN")
TUNE = commands.Connection.Tune(channel_max=10, frame_max=131_072, heartbeat=0)


class Scripted:
    """Listens on a free port of this machine; one client at a time."""

    async def __aenter__(self) -> Self:
        self._clients: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._server = await asyncio.start_server(lambda *both: self._clients.put_nowait(both), "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])
        self._writers: list[asyncio.StreamWriter] = []
        self._heard = b""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def accept(self) -> None:
        """The next client."""
        self._reader, writer = await self._clients.get()
        self._writers.append(writer)
        self._heard = b""

    async def greet(self) -> None:
        """The next client, and its first bytes."""
        await self.accept()
        assert await self._reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"

    async def shake_hands(self, tune: commands.Connection.Tune = TUNE) -> commands.Connection.TuneOk:
        """All of the handshake; return what the client agreed to."""
        await self.greet()
        self.say(0, START)
        await self.hear(commands.Connection.StartOk)
        self.say(0, tune)
        agreed = await self.hear(commands.Connection.TuneOk)
        await self.hear(commands.Connection.Open)
        self.say(0, commands.Connection.OpenOk())
        return agreed

    async def connected(self, heartbeat: int = 0, tune: commands.Connection.Tune = TUNE) -> Connection:
        """A client that has connected."""
        connection, _ = await asyncio.gather(
            connect(self.address, heartbeat=heartbeat, properties={"connection_name": "test"}), self.shake_hands(tune)
        )
        return connection

    async def open_channel(self, number: int = 1, *, confirms: bool = False) -> None:
        """Answer to a client that opens a channel."""
        await self.hear(commands.Channel.Open)
        self.say(number, commands.Channel.OpenOk())
        if confirms:
            await self.hear(commands.Confirm.Select)
            self.say(number, commands.Confirm.SelectOk())

    def say(self, number: int, *frames: FrameTypes) -> None:
        """Send frames, in one piece."""
        self.say_bytes(b"".join(marshal(frame, number) for frame in frames))

    def say_bytes(self, data: bytes) -> None:
        """Send any bytes."""
        self._writers[-1].write(data)

    def hang_up(self) -> None:
        """Close the socket."""
        self._writers[-1].close()

    async def hear_any(self) -> FrameTypes:
        """The next frame of the client."""
        while True:
            try:
                used, self.number, frame = unmarshal(self._heard)
            except Exception:  # not all of it is here
                piece = await self._reader.read(65536)
                if not piece:
                    raise EOFError from None
                self._heard += piece
            else:
                self._heard = self._heard[used:]
                return frame

    async def hear(self, kind: type[Kind]) -> Kind:
        """The next frame of the client, which must be of this kind."""
        frame = await self.hear_any()
        assert isinstance(frame, kind), f"{frame} where {kind.name} was expected"
        return frame

    async def hear_bytes(self) -> bytes:
        """Whatever the client says next; nothing at its end."""
        return await self._reader.read(65536)

    async def hear_messages(self, count: int) -> None:
        """So many published messages, each with a body in one frame."""
        for _ in range(count):
            await self.hear(commands.Basic.Publish)
            assert isinstance(await self.hear_any(), ContentHeader)
            assert isinstance(await self.hear_any(), ContentBody)

    async def round_trip(self, channel: Channel) -> None:
        """The client asks something and is answered: what was said before, on either side, has been heard by then."""
        asked = asyncio.ensure_future(channel.qos(1))
        await self.hear(commands.Basic.Qos)
        self.say(channel.number, commands.Basic.QosOk())
        await asked

    async def hear_end(self) -> None:
        """Nothing more, and the end."""
        try:
            frame = await self.hear_any()
        except (EOFError, ConnectionResetError):
            return
        raise AssertionError(f"{frame} where the end was expected")

    async def hear_end_of_socket(self) -> None:
        """Whatever is still said, and the end."""
        try:
            while await self.hear_bytes():
                pass
        except ConnectionResetError:
            pass


def header(size: int, properties: commands.Basic.Properties | None = None) -> ContentHeader:
    """The header of a message with a body of this size."""
    return ContentHeader(0, size, properties or commands.Basic.Properties())
