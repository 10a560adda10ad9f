"""Queues and streams of the in-memory broker: what holds messages and hands them to consumers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flowkit.broker.protocol import Outgoing
from flowkit.wire.topology import Argument, Queue

STREAM_BYTES = 32 * 1024 * 1024  # a stream on disk may have a gigabyte; in a process's memory it must not


@dataclass(slots=True)
class Held:
    """A message in a queue or in the hands of one of its consumers."""

    message: Outgoing
    expires: float | None = None  # by the loop's clock
    redelivered: bool = False
    returns: int = 0  # how often it was delivered and came back; quorum queues count it
    offset: int | None = None  # in a stream


class Taker(Protocol):
    """A consumer, seen from the server."""

    @property
    def room(self) -> bool:
        """Whether it may get one more: less than ``prefetch`` are unacknowledged."""

    def take(self, held: Held) -> None:
        """Deliver one message."""

    def cancelled(self) -> None:
        """The queue is gone."""

    def attach(self) -> None:
        """Begin to consume when the queue is there."""

    def cut(self) -> None:
        """The connection is gone."""

    def restore(self) -> None:
        """The connection is there again."""


class MemoryQueue:
    """A quorum, classic or exclusive queue.

    Args:
        declared: name and arguments, kept to compare with later declarations.
        owner: the connection that an exclusive queue belongs to.
        bury: called with a message that goes to the dead letters, and why.
    """

    def __init__(self, declared: Queue, owner: object | None, bury: Callable[[MemoryQueue, Held, str], None]) -> None:
        self.declared, self.owner = declared, owner
        self.arguments: Mapping[str, Argument] = dict(declared.arguments)
        self.takers: deque[Taker] = deque()
        self._bury = bury
        self._ready: deque[Held] = deque()
        self._counts = self.arguments.get("x-queue-type") == "quorum"
        self._limit = _number(self.arguments, "x-delivery-limit")
        self._max_length = _number(self.arguments, "x-max-length")
        self._refuses = self.arguments.get("x-overflow") == "reject-publish"
        ttl = _number(self.arguments, "x-message-ttl")
        self._ttl = None if ttl is None else ttl / 1000

    def __len__(self) -> int:
        self._expire()
        return len(self._ready)

    @property
    def full(self) -> bool:
        """Whether it refuses to take one more (``x-overflow: reject-publish``)."""
        return self._refuses and self._max_length is not None and len(self) >= self._max_length

    def limit_length(self, most: int | None) -> None:
        """Refuse what is over so many messages from now on; None: as it was declared."""
        self._max_length = _number(self.arguments, "x-max-length") if most is None else most
        self._refuses = most is not None or self.arguments.get("x-overflow") == "reject-publish"

    def put(self, message: Outgoing) -> None:
        """Take a message at the end, and drop the oldest one where there are too many."""
        self._ready.append(Held(message, None if self._ttl is None else _now() + self._ttl))
        self.dispatch()
        if self._max_length is not None and len(self._ready) > self._max_length:
            self._bury(self, self._ready.popleft(), "maxlen")

    def give_back(self, held: Iterable[Held]) -> None:
        """Put messages that were delivered in front again, in their order; over the delivery limit they are buried."""
        again: list[Held] = []
        for one in held:
            one.redelivered = True
            if self._counts:
                one.returns += 1
            if self._limit is not None and one.returns > self._limit:
                self._bury(self, one, "delivery_limit")
            else:
                again.append(one)
        self._ready.extendleft(reversed(again))
        self.dispatch()

    def give_up(self, held: Iterable[Held]) -> None:
        """Bury messages that a consumer rejected."""
        for one in held:
            self._bury(self, one, "rejected")
        self.dispatch()

    def attach(self, taker: Taker, offset: int | str | None) -> None:
        """Begin to deliver to this consumer; ``offset`` is a stream's affair."""
        del offset
        self.takers.append(taker)
        self.dispatch()

    def detach(self, taker: Taker) -> None:
        """Deliver nothing more to this consumer."""
        if taker in self.takers:
            self.takers.remove(taker)

    def dispatch(self) -> None:
        """Deliver what is ready to those who have room, in turn."""
        self._expire()
        while self._ready:
            taker = self._next()
            if taker is None:
                return
            taker.take(self._ready.popleft())

    def _next(self) -> Taker | None:
        for _ in range(len(self.takers)):
            taker = self.takers[0]
            self.takers.rotate(-1)
            if taker.room:
                return taker
        return None

    def _expire(self) -> None:
        if self._ttl is None:
            return
        now = _now()
        while self._ready and (self._ready[0].expires or now) < now:
            self._bury(self, self._ready.popleft(), "expired")


class MemoryStream(MemoryQueue):
    """A stream: everybody reads it from an offset, and reading empties nothing."""

    def __init__(self, declared: Queue, owner: object | None, bury: Callable[[MemoryQueue, Held, str], None]) -> None:
        super().__init__(declared, owner, bury)
        self._log: deque[Held] = deque()
        self._bytes = 0
        self._most = min(_number(self.arguments, "x-max-length-bytes") or STREAM_BYTES, STREAM_BYTES)
        self._end = 0  # the offset of the next message
        self._next_of: dict[Taker, int] = {}

    def __len__(self) -> int:
        return len(self._log)

    def put(self, message: Outgoing) -> None:
        """Append, and forget the oldest beyond the bound."""
        self._log.append(Held(message, offset=self._end))
        self._end += 1
        self._bytes += len(message.body)
        while self._bytes > self._most and len(self._log) > 1:
            self._bytes -= len(self._log.popleft().message.body)
        self.dispatch()

    def give_back(self, held: Iterable[Held]) -> None:
        """A stream takes nothing back: who wants it again asks for its offset."""
        del held
        self.dispatch()

    def attach(self, taker: Taker, offset: int | str | None) -> None:
        """Begin to deliver from an offset: a number, ``first``, ``last`` or ``next`` (the default)."""
        first = self._end - len(self._log)
        if isinstance(offset, int):
            begin = max(offset, first)
        else:
            begin = {"first": first, "last": max(first, self._end - 1)}.get(offset or "next", self._end)
        self._next_of[taker] = begin
        super().attach(taker, offset)

    def detach(self, taker: Taker) -> None:
        """Deliver nothing more to this consumer."""
        self._next_of.pop(taker, None)
        super().detach(taker)

    def dispatch(self) -> None:
        """Deliver to each consumer what is behind its offset."""
        first = self._end - len(self._log)
        for taker in tuple(self.takers):
            while taker in self._next_of and self._next_of[taker] < self._end and taker.room:
                at = max(self._next_of[taker], first)
                self._next_of[taker] = at + 1
                taker.take(self._log[at - first])


def _now() -> float:
    return asyncio.get_running_loop().time()


def _number(arguments: Mapping[str, Any], name: str) -> int | None:
    value = arguments.get(name)
    return value if isinstance(value, int) else None
