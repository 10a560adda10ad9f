"""Messages on their way: which are confirmed, sent back or refused, counted instead of awaited one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain

from flowkit.amqp.errors import (
    COMMAND_INVALID,
    ChannelClosed,
    ConnectionLost,
    MalformedProperties,
    Nacked,
    ProtocolViolation,
    Returned,
)
from flowkit.amqp.events import SentBack
from flowkit.amqp.frames import Publication
from flowkit.amqp.properties import Properties

# None: confirmed.
Outcome = Returned | Nacked | ChannelClosed | ConnectionLost | ValueError | None


class Batch:
    """What one call publishes, what became of each message, and how many are not decided yet."""

    __slots__ = ("done", "left", "outcomes", "publications")

    def __init__(self, publications: Sequence[Publication]) -> None:
        self.publications = publications
        self.outcomes: list[Outcome] = [None] * len(publications)
        self.left = len(publications)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, count: int) -> None:
        """So many more are decided."""
        self.left -= count
        if not self.left and not self.done.done():  # it is done when whoever waited was cancelled
            self.done.set_result(None)


class _Stretch:
    """Consecutive messages of a batch with consecutive delivery tags: position in the batch is tag + shift."""

    __slots__ = ("batch", "shift")

    def __init__(self, batch: Batch, shift: int) -> None:
        self.batch, self.shift = batch, shift


class Confirmations:
    """The messages of one channel that are not confirmed yet."""

    def __init__(self) -> None:
        self._sent = 0  # the last delivery tag; the broker counts in the same way
        self._open: dict[int, _Stretch] = {}  # by delivery tag, rising
        self._looked = 0  # the tag behind which the next message that comes back is looked for first

    def sent(self, batch: Batch, first: int, count: int) -> None:
        """The messages of the batch from position ``first`` on have been written, in this order."""
        start = self._sent + 1
        self._sent += count
        self._open.update(dict.fromkeys(range(start, self._sent + 1), _Stretch(batch, first - start)))

    def confirm(self, confirms: Iterable[tuple[int, bool, bool]]) -> None:
        """The broker has decided: delivery tag, whether it means all up to it, whether it is good.

        Raises:
            ProtocolViolation: nothing with such a tag was sent.
        """
        waiting = self._open
        for tag, multiple, good in confirms:
            if tag > self._sent or not (tag or multiple):
                raise ProtocolViolation(f"a confirm for message {tag}, {self._sent} were published", COMMAND_INVALID)
            if multiple:
                tags = []
                for one in waiting:
                    if one > tag > 0:  # 0: everything
                        break
                    tags.append(one)
            else:
                tags = [tag] if tag in waiting else []
            for one in tags:
                stretch = waiting.pop(one)
                batch = stretch.batch
                if not good:
                    at = one + stretch.shift
                    batch.outcomes[at] = batch.outcomes[at] or Nacked("the broker refused the message")
                batch.settle(1)

    def sent_back(self, event: SentBack) -> None:
        """A message came back, which is told by where it was sent and its message id; its confirm follows.

        Messages come back in the order in which they were sent, so the search goes on where the last one ended.
        Of several that are the same it is the first that has not come back yet.

        Raises:
            ProtocolViolation: no such message is on its way.
        """
        try:
            message_id = Properties(event.raw).message_id
        except MalformedProperties as error:
            raise ProtocolViolation("a message back whose properties cannot be read", COMMAND_INVALID) from error
        wanted = event.exchange, event.key, message_id or None
        oldest = next(iter(self._open), self._sent + 1)
        start = max(oldest, self._looked + 1)
        for tag in chain(range(start, self._sent + 1), range(oldest, start)):
            stretch = self._open.get(tag)
            if stretch is None:
                continue
            batch, at = stretch.batch, tag + stretch.shift
            exchange, key, _, sent_id, *_ = batch.publications[at]
            if (exchange, key, sent_id or None) == wanted and batch.outcomes[at] is None:
                batch.outcomes[at] = Returned(event.text, event.code)
                self._looked = tag
                return
        raise ProtocolViolation(f"message {message_id!r} back, which was not under way", COMMAND_INVALID)

    def lose(self, error: ChannelClosed | ConnectionLost) -> None:
        """No confirm will come any more."""
        lost, self._open = self._open, {}
        for tag, stretch in lost.items():
            at, batch = tag + stretch.shift, stretch.batch
            batch.outcomes[at] = batch.outcomes[at] or error
            batch.settle(1)
