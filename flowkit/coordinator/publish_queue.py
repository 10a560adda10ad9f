"""Publishes what time-driven commits bring about, so that the next commit does not wait for it.

Publishing takes as long as an alarm of the broker lasts, or until a lost connection is back. Deadlines pass meanwhile
and schedules come due; committing them needs no broker.
"""

from __future__ import annotations

import asyncio

from flowkit.coordinator.commit import Committed
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox

MOST = 2_000  # tasks, ended runs and attempts that control messages name, in the queue


class PublishQueue:
    """Publishes what commits brought about, in their order.

    The queue is bounded: what does not fit is left to the relay, since its rows say that it is unsent or unannounced.
    Its control messages are not sent then: workers are answered when they announce what was cancelled.
    """

    def __init__(self, ledger: Ledger, outbox: Outbox) -> None:
        self._ledger, self._outbox = ledger, outbox
        self._waiting: asyncio.Queue[Committed] = asyncio.Queue()
        self._size = 0  # with what is being published

    def add(self, committed: Committed) -> None:
        """Have this published; returns at once."""
        size = _size(committed)
        if self._size and self._size + size > MOST:
            self._ledger.release(committed.tasks)
            return
        self._size += size
        self._waiting.put_nowait(committed)

    async def run(self) -> None:
        """For ever."""
        while True:
            committed = await self._waiting.get()
            try:
                await self._outbox.deliver(committed)
            finally:
                self._size -= _size(committed)


def _size(committed: Committed) -> int:
    named = sum(1 + len(control.others) for control in committed.controls)
    return len(committed.tasks) + len(committed.ended) + named
