"""One channel: publishing in batches, consuming in batches, and any rare question to the broker."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pamqp import commands
from pamqp.base import Frame

from flowkit.amqp import frames
from flowkit.amqp.confirms import Batch, Confirmations, Outcome
from flowkit.amqp.errors import COMMAND_INVALID, SYNTAX_ERROR, ChannelClosed, ConnectionLost, ProtocolViolation
from flowkit.amqp.events import Arrived, Confirms, Deliveries, Event, Method, SentBack
from flowkit.amqp.frames import Publication

if TYPE_CHECKING:
    from flowkit.amqp.connection import Connection

WINDOW = 500  # messages that are written at a time, before the loop and its other tasks have a turn
WINDOW_BYTES = 1024 * 1024  # the same for their bodies: what may lie in memory twice


class Channel:
    """A channel of a connection, made by ``Connection.channel``.

    ``closed`` is done when the channel has ended, with why as its result. It is not to be cancelled: wait for it with
    ``asyncio.wait``. ``on_cancel`` is called with the tag of a consumer that the broker has ended.
    """

    def __init__(self, connection: Connection, number: int, frame_max: int) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.closed: asyncio.Future[ChannelClosed | ConnectionLost] = loop.create_future()
        self.on_cancel: Callable[[str], None] | None = None
        self._connection = connection
        self._confirmations: Confirmations | None = None
        self._frames = frames.PublishFrames(number, frame_max)
        # Questions as bytes, names of their answers, who waits. Only the first is asked: the broker answers some out of
        # order, as basic.consume on a classic queue.
        self._calls: deque[tuple[bytes, Sequence[str], asyncio.Future[Frame]]] = deque()
        self._consumers: dict[str, Callable[[list[Arrived]], None]] = {}
        self._consumer_count = 0
        self._closing = False
        self._flowing: asyncio.Future[None] | None = None  # while the broker has asked for silence

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._closing or self.closed.done()

    async def open(self, *, confirms: bool) -> None:
        """Open it, which ``Connection.channel`` does."""
        try:
            await self.call(commands.Channel.Open())
            if confirms:
                await self.call(commands.Confirm.Select())
                self._confirmations = Confirmations()
        except asyncio.CancelledError:
            self._send_close()
            raise

    async def close(self) -> None:
        """Close it, and wait for the broker's answer; one that has ended is left alone."""
        self._send_close()
        await asyncio.wait((self.closed,))

    def _send_close(self) -> None:
        if not self.is_closed:
            self._closing = True
            self._send(commands.Channel.Close(200, "", 0, 0))

    # -- questions

    async def call(self, frame: Frame) -> Frame:
        """Ask the broker, and return its answer.

        Args:
            frame: a method with an answer, such as ``pamqp.commands.Queue.Declare``, but basic.get.

        Raises:
            ValueError: it has no answer, or cannot be written.
            ChannelClosed: the broker refused it, and has closed the channel for it.
            ConnectionLost
        """
        if not frame.synchronous or getattr(frame, "nowait", False) or isinstance(frame, commands.Basic.Get):
            raise ValueError(f"{frame.name} is not a question with a plain answer")
        raw = self._written(frame)
        self._fail_if_closed()
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._calls.append((raw, frame.valid_responses, answer))
        if len(self._calls) == 1:
            self._connection.write(raw)
        return await answer

    def _fail_if_closed(self) -> None:
        if self.closed.done():
            raise copy.copy(self.closed.result())
        if self._closing:
            raise ChannelClosed("the channel is being closed", 200)

    def _written(self, frame: Frame) -> bytes:
        return self._connection.written(self.number, frame)

    def _send(self, frame: Frame) -> None:
        self._connection.write(self._written(frame))

    # -- publishing

    async def publish(self, batch: Sequence[Publication]) -> list[Outcome]:
        """Publish all, pipelined, with one wait for their confirms; return what became of each, in order.

        ``None``: the broker has it (on a channel without confirms: it was written). Else an error, which is not raised:
        ``Returned``, ``Nacked``, ``ChannelClosed`` or ``ConnectionLost`` (it may have arrived or not), or the
        ``ValueError`` of a message that AMQP cannot carry.

        Args:
            batch: ``(exchange, routing key, mandatory, message id, properties, body)`` each. A message that comes back
                is recognised by its message id, which must be the one in its properties.
        """
        made, at = Batch(batch), 0
        while at < len(batch):
            if at:
                await asyncio.sleep(0)
            while not self.is_closed and (wait := self._flowing or self._connection.paused):
                await asyncio.wait((wait, self.closed), return_when=asyncio.FIRST_COMPLETED)
            if self.is_closed:
                made.outcomes[at:] = [self._end()] * (len(batch) - at)
                made.settle(len(batch) - at)
                break
            at = self._write(made, at)
        if made.left:
            await made.done
        return made.outcomes

    def _write(self, batch: Batch, first: int) -> int:
        """Write messages of the batch from ``first`` on, up to a window; return the position behind them."""
        parts: list[bytes] = []
        size, at, add = 0, first, self._frames.add
        try:
            for publication in batch.publications[first : first + WINDOW]:
                size += add(parts, publication)
                at += 1
                if size >= WINDOW_BYTES:
                    break
            behind = at
        except ValueError as error:  # it was not written, not even in part; tags go on behind it
            batch.outcomes[at] = error
            batch.settle(1)
            behind = at + 1
        if self._confirmations is None:
            batch.settle(at - first)
        else:
            self._confirmations.sent(batch, first, at - first)
        self._connection.write(b"".join(parts))
        return behind

    def _end(self) -> ChannelClosed | ConnectionLost:
        return self.closed.result() if self.closed.done() else ChannelClosed("the channel is being closed", 200)

    # -- consuming

    async def qos(self, prefetch: int) -> None:
        """Let consumers that are made from now on have so many unacknowledged messages each; 0: any number."""
        await self.call(commands.Basic.Qos(prefetch_size=0, prefetch_count=prefetch))

    async def consume(
        self,
        queue: str,
        on_deliveries: Callable[[list[Arrived]], None],
        *,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Consume a queue; return the consumer's tag.

        Args:
            queue: its name.
            on_deliveries: called with all messages of one read of the socket, from within the event loop: it only puts
                them aside. What it raises ends the connection.
            arguments: such as ``x-stream-offset``.

        Raises:
            ChannelClosed, ConnectionLost
        """
        self._consumer_count += 1
        tag = f"{self.number}.{self._consumer_count}"  # ours, so that deliveries can be told before the answer is read
        self._consumers[tag] = on_deliveries
        await self.call(commands.Basic.Consume(queue=queue, consumer_tag=tag, arguments=dict(arguments or {})))
        return tag

    async def cancel(self, consumer_tag: str) -> None:
        """End a consumer; until this returns deliveries may come for it, and all can still be acknowledged.

        Raises:
            ChannelClosed, ConnectionLost
        """
        if consumer_tag in self._consumers:
            await self.call(commands.Basic.Cancel(consumer_tag))
            self._consumers.pop(consumer_tag, None)

    def acknowledge(self, *, up_to: int | None, singles: Sequence[int]) -> None:
        """Done with all deliveries up to a tag, and with these others; on a channel that has ended, nothing."""
        if not self.is_closed and (up_to is not None or singles):
            self._connection.write(frames.acks(self.number, up_to=up_to, singles=singles))

    def refuse(self, tags: Sequence[int], *, requeue: bool) -> None:
        """Give these deliveries back to the queue, or up: they go where its dead letters go."""
        if not self.is_closed and tags:
            self._connection.write(frames.nacks(self.number, tags, requeue=requeue))

    # -- what arrives

    def take(self, event: Event) -> None:
        """An event of this channel has arrived.

        Raises:
            ProtocolViolation
        """
        match event:
            case Deliveries():
                self._deliver(event)
            case Confirms():
                if self._confirmations is None:
                    raise ProtocolViolation("a confirm on a channel without confirms", COMMAND_INVALID)
                self._confirmations.confirm(event.confirms)
            case SentBack():
                if self._confirmations is not None:
                    self._confirmations.sent_back(event)
            case Method():
                self._method(event.frame)

    def _deliver(self, event: Deliveries) -> None:
        if self._closing:
            return  # they go back to their queues
        on_deliveries = self._consumers.get(event.consumer_tag)
        if on_deliveries is None:
            raise ProtocolViolation(f"a delivery for an unknown consumer {event.consumer_tag!r}", COMMAND_INVALID)
        on_deliveries(event.arrived)

    def _method(self, frame: Frame) -> None:
        match frame:
            case commands.Channel.Close():
                self._send(commands.Channel.CloseOk())
                if not self._closing:  # else the answer to our own is still on its way, and the number is not free
                    self._connection.forget(self.number)
                self.end(ChannelClosed(frame.reply_text, frame.reply_code))
            case commands.Channel.CloseOk() if self._closing:
                self._connection.forget(self.number)
                self.end(ChannelClosed("closed by its owner", 200))
            case commands.Channel.Flow():
                self._flow(flowing=bool(frame.active))
            case commands.Basic.Cancel():
                self._cancelled(frame)
            case _:
                self._answer(frame)

    def _answer(self, frame: Frame) -> None:
        if not self._calls or frame.name not in self._calls[0][1]:
            raise ProtocolViolation(f"{frame.name}, which answers no question", COMMAND_INVALID)
        *_, answer = self._calls.popleft()
        if not answer.done():  # it is done when whoever asked was cancelled
            answer.set_result(frame)
        while self._calls and self._calls[0][2].done():
            self._calls.popleft()
        if self._calls:
            self._connection.write(self._calls[0][0])

    def _flow(self, *, flowing: bool) -> None:
        self._send(commands.Channel.FlowOk(flowing))
        silence, self._flowing = self._flowing, None
        if not flowing:
            self._flowing = silence or asyncio.get_running_loop().create_future()
        elif silence is not None:
            silence.set_result(None)

    def _cancelled(self, frame: commands.Basic.Cancel) -> None:
        tag = frame.consumer_tag or ""
        if not tag:
            raise ProtocolViolation("basic.cancel without a consumer", SYNTAX_ERROR)
        self._consumers.pop(tag, None)
        if not frame.nowait:
            self._send(commands.Basic.CancelOk(tag))
        if self.on_cancel is not None:
            self.on_cancel(tag)

    def end(self, error: ChannelClosed | ConnectionLost) -> None:
        """It has ended: tell all who wait."""
        if self.closed.done():
            return
        self.closed.set_result(error)
        calls, self._calls = self._calls, deque()
        self._consumers.clear()
        for *_, answer in calls:
            if not answer.done():
                answer.set_exception(copy.copy(error))
        if self._confirmations is not None:
            self._confirmations.lose(error)
