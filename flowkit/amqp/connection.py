"""One connection: the socket, the handshake, heartbeats, and what concerns all channels."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from typing import cast

from pamqp import commands
from pamqp.base import Frame

from flowkit.amqp import frames
from flowkit.amqp.address import Address
from flowkit.amqp.channel import Channel
from flowkit.amqp.errors import (
    CHANNEL_ERROR,
    COMMAND_INVALID,
    FRAME_ERROR,
    ChannelClosed,
    ConnectionLost,
    NotAmqp,
    ProtocolViolation,
)
from flowkit.amqp.events import Event, Method
from flowkit.amqp.handshake import shake_hands
from flowkit.amqp.machine import Machine

MISSED = 8  # beats without a byte, four to a heartbeat: two heartbeats were missed
MAX_UNSENT = 16 * 1024 * 1024  # bytes of acknowledgements and answers
LINGER = 3.0  # seconds for the last words to leave, when the connection is closed for a fault


async def connect(address: Address, *, heartbeat: int, properties: Mapping[str, object]) -> Connection:
    """Connect and log in; the caller bounds it in time. Cancelled or failed, it leaves no socket behind.

    Args:
        address: where to, and as whom. A heartbeat in it counts before the argument.
        heartbeat: seconds after which a silent peer is suspect; the lower of ours and the broker's counts, and 0 is no
            wish at all.
        properties: what the broker shows of this client, such as ``connection_name``.

    Raises:
        OSError: nobody there; ``ssl.SSLError`` among them.
        NotAmqp, LoginRefused, NotAllowed, ConnectionLost
    """
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        Connection, address.host, address.port, ssl=address.tls, server_hostname=address.host if address.tls else None
    )
    try:
        connection.server_properties = await shake_hands(
            connection, address, heartbeat if address.heartbeat is None else address.heartbeat, properties
        )
    except BaseException:
        await connection.drop()
        raise
    return connection


class Connection(asyncio.Protocol):
    """A connection to a broker, made by ``connect``.

    ``closed`` is done when the connection has ended, with why as its result. It is not to be cancelled: wait for it
    with ``asyncio.wait``. What lies between construction and ``connect`` is the handshake's.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[ConnectionLost] = self._loop.create_future()
        self._why: ConnectionLost | NotAmqp | None = None
        self.server_properties: Mapping[str, object] = {}
        self.paused: asyncio.Future[None] | None = None  # while what was written has not left; done when it has
        self._unsent = 0  # bytes written while paused
        self._gone: asyncio.Future[None] = self._loop.create_future()  # the socket is closed
        self._transport: asyncio.Transport | None = None
        self._machine = Machine()
        self._channels: dict[int, Channel] = {}
        self._frame_max, self._channel_max = self._machine.frame_max, 0
        self._answer: tuple[tuple[str, ...], asyncio.Future[Frame]] | None = None  # what is waited for on channel 0
        self._alarm: asyncio.Future[None] | None = None  # while the broker takes no messages
        self.blocked_reason: str | None = None  # while it is blocked: what the broker says of it
        self.on_blocked: Callable[[], None] | None = None  # called when it is blocked, and when it is not any more
        self._closing = False
        self._heard = self._said = False  # since the last beat
        self._missed = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages now, because of an alarm."""
        return self._alarm is not None

    async def unblocked(self) -> None:
        """Return when not blocked.

        Raises:
            ConnectionLost: it has ended first.
        """
        while self._alarm is not None and not self.closed.done():
            await asyncio.wait((self._alarm, self.closed), return_when=asyncio.FIRST_COMPLETED)
        self._fail_if_closed()

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel.

        Args:
            confirms: whether the broker confirms what is published on it.

        Raises:
            ChannelClosed: as many are open as the broker allows.
            ConnectionLost
        """
        self._fail_if_closed()
        number = next((one for one in range(1, self._channel_max + 1) if one not in self._channels), 0)
        if not number:
            raise ChannelClosed(f"all {self._channel_max} channels of the connection are in use", CHANNEL_ERROR)
        channel = self._channels[number] = Channel(self, number, self._frame_max)
        self._machine.channels.add(number)
        await channel.open(confirms=confirms)
        return channel

    async def close(self) -> None:
        """Close it in good order; the caller bounds it in time, and cancelled it ends at once all the same."""
        try:
            if self._closing:
                await asyncio.wait((self.closed,))
            elif not self.closed.done():
                self._closing = True
                await self.ask(commands.Connection.Close(200, "", 0, 0), commands.Connection.CloseOk)
        except ConnectionLost:
            pass
        finally:
            self.abort()
        await asyncio.wait((self._gone,))

    def abort(self) -> None:
        """End it now."""
        self._end(ConnectionLost("closed by its owner"))
        if self._transport is not None:
            self._transport.abort()

    async def drop(self) -> None:
        """End it now, and return when the socket is closed."""
        self.abort()
        await asyncio.wait((self._gone,))

    # -- for the handshake and the channels

    async def ask(self, frame: Frame | None, *answers: type[Frame]) -> Frame:
        """Send a frame on channel 0 and wait for one of these.

        Raises:
            ConnectionLost
        """
        self._fail_if_closed()
        answer: asyncio.Future[Frame] = self._loop.create_future()
        self._answer = tuple(kind.name for kind in answers), answer
        if frame is not None:
            self.write(self.written(0, frame))
        return await answer

    def tune(self, *, frame_max: int, channel_max: int, heartbeat: int) -> None:
        """What was agreed on: bytes of the largest frame, number of channels, seconds between heartbeats."""
        self._frame_max = self._machine.frame_max = frame_max
        self._channel_max = channel_max
        if heartbeat:
            self._timer = self._loop.call_later(heartbeat / 4, self._beat, heartbeat / 4)

    def written(self, number: int, frame: Frame) -> bytes:
        """A rare frame as bytes.

        Raises:
            ValueError: AMQP cannot carry it, or not in one frame.
        """
        raw = frames.method(number, frame)
        if len(raw) > self._frame_max:
            raise ValueError(f"{frame.name} takes {len(raw)} bytes, the broker takes {self._frame_max} in a frame")
        return raw

    def write(self, data: bytes) -> None:
        """Send bytes; after the end of the connection they are dropped.

        Messages wait while the other side does not take them (``paused``). Answers do not, so they are counted then.
        """
        if self._transport is None or self.closed.done():
            return
        if self.paused is not None:
            self._unsent += len(data)
            if self._unsent > MAX_UNSENT:
                self._end(ConnectionLost(f"the broker has not taken {self._unsent} bytes of answers"))
                self._transport.abort()
                return
        self._said = True
        self._transport.write(data)

    def forget(self, number: int) -> None:
        """A channel has ended: its number is free."""
        self._channels.pop(number, None)
        self._machine.close(number)

    # -- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._heard = True
        if self.closed.done():
            return
        try:
            for event in self._machine.receive(data):
                if self.closed.done():
                    return
                self._take(event)
        except ProtocolViolation as violation:
            self._refuse(violation)

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed."""
        self._end(ConnectionLost(f"the connection broke: {error}" if error else "the broker closed it without a word"))
        if self._timer is not None:
            self._timer.cancel()
        self._gone.set_result(None)

    def pause_writing(self) -> None:
        """The other side takes less than is written."""
        self.paused, self._unsent = self._loop.create_future(), 0

    def resume_writing(self) -> None:
        """The other side has caught up."""
        paused, self.paused = self.paused, None
        if paused is not None:
            paused.set_result(None)

    # -- what arrives

    def _take(self, event: Event) -> None:
        if isinstance(event, ProtocolViolation):
            raise event
        if isinstance(event, NotAmqp):
            self._end(event)
            self._close_socket()
        elif event.channel:
            channel = self._channels.get(event.channel)
            if channel is None:  # closed by an event of the same read; the broker had not closed it yet
                raise ProtocolViolation(f"a frame for channel {event.channel}, which is not open", CHANNEL_ERROR)
            channel.take(event)
        elif isinstance(event, Method):
            self._method(event.frame)
        else:
            raise ProtocolViolation("a message on channel 0", COMMAND_INVALID)

    def _method(self, frame: Frame) -> None:
        expected, answer = self._answer or ((), None)
        if answer is not None and frame.name in expected:
            self._answer = None
            if not answer.done():
                answer.set_result(frame)
            return
        match frame:
            case commands.Connection.Close():
                self.write(self.written(0, commands.Connection.CloseOk()))
                self._end(ConnectionLost(frame.reply_text, frame.reply_code))
                self._close_socket()
            case commands.Connection.Blocked() if self._channel_max:
                self._alarm = self._alarm or self._loop.create_future()
                self._set_blocked_reason(frame.reason or "it does not say why")
            case commands.Connection.Unblocked() if self._channel_max:
                alarm, self._alarm = self._alarm, None
                if alarm is not None:
                    alarm.set_result(None)
                self._set_blocked_reason(None)
            case _:
                raise ProtocolViolation(f"{frame.name}, which answers no question", COMMAND_INVALID)

    def _set_blocked_reason(self, reason: str | None) -> None:
        changed, self.blocked_reason = reason != self.blocked_reason, reason
        if changed and self.on_blocked is not None:
            self.on_blocked()

    def _refuse(self, violation: ProtocolViolation) -> None:
        """The other side does what it may not: say so, and go."""
        text = violation.text.encode("ascii", "backslashreplace")[:200].decode()  # AMQP carries 255 bytes
        self.write(self.written(0, commands.Connection.Close(violation.code or FRAME_ERROR, text, 0, 0)))
        self._end(ConnectionLost(f"the broker sent {violation.text}", violation.code))
        self._close_socket()

    def _close_socket(self) -> None:
        """Close it when the last words have left, but do not wait for long."""
        if self._transport is not None:
            self._transport.close()
            self._timer = self._loop.call_later(LINGER, self._transport.abort)

    # -- its end

    def _fail_if_closed(self) -> None:
        if self._why is not None:
            raise copy.copy(self._why)

    def _end(self, error: ConnectionLost | NotAmqp) -> None:
        """It has ended: tell all who wait."""
        if self.closed.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._why = error
        lost = error if isinstance(error, ConnectionLost) else ConnectionLost(error.text)
        self.closed.set_result(lost)
        if self._answer is not None and not self._answer[1].done():
            self._answer[1].set_exception(copy.copy(error))
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end(lost)

    def _beat(self, pause: float) -> None:
        """Four times in a heartbeat's time: speak when nothing was said since, and count how long nothing was heard.

        What is counted are beats and not time: when this process stood still, the broker has not been silent.
        """
        self._missed = 0 if self._heard else self._missed + 1
        if self._missed >= MISSED:
            self._end(ConnectionLost(f"nothing was heard from the broker for {MISSED * pause:g} s"))
            if self._transport is not None:
                self._transport.abort()
            return
        if not self._said:
            self.write(frames.HEARTBEAT)
        self._heard = self._said = False
        self._timer = self._loop.call_later(pause, self._beat, pause)
