"""Counting confirms, for a client whose own way would be a future for each message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flowkit import amqp


class Confirms:
    """The messages of one channel that wait for their confirms, by the number that the broker gives them."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[int, tuple[Batch, int]] = {}  # rising
        self._returned: dict[str, amqp.Returned] = {}

    def expect(self, batch: Batch, at: int) -> None:
        """The next message to be published is this one of a batch."""
        self._next += 1
        self._waiting[self._next] = batch, at

    def returned(self, message_id: str, why: amqp.Returned) -> None:
        """It had no queue; its confirm follows."""
        self._returned[message_id] = why

    def settle(self, tag: int, *, multiple: bool, outcome: amqp.Outcome) -> None:
        """The broker has said what became of one, or of all up to this one."""
        tags = [tag]
        if multiple:
            tags = []
            for waiting in self._waiting:
                if waiting > tag:
                    break
                tags.append(waiting)
        for one in tags:
            batch, at = self._waiting.pop(one)
            batch.settle(at, self._returned.pop(batch.ids[at], outcome) if self._returned else outcome)

    def fail(self, outcome: amqp.Outcome) -> None:
        """Nothing more is heard of what waits."""
        for batch, at in self._waiting.values():
            batch.settle(at, outcome)
        self._waiting.clear()


class Batch:
    """What was published together, and one future for all of it."""

    def __init__(self, publications: Sequence[amqp.Publication]) -> None:
        self.ids = [message_id for _, _, _, message_id, _, _ in publications]
        self.outcomes: list[amqp.Outcome] = [None] * len(publications)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = len(publications)
        if not self._left:
            self.done.set_result(None)

    def settle(self, at: int, outcome: amqp.Outcome) -> None:
        """One of them is settled."""
        self.outcomes[at] = outcome
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)
