"""What waits for a broker that takes nothing is bounded, whatever it consists of."""

from __future__ import annotations

import asyncio
from uuid import UUID

from flowkit.coordinator.commit import Committed
from flowkit.coordinator.publish_queue import MOST, PublishQueue
from flowkit.flow import cancelling
from flowkit.flow.events import AttemptsCancelled


class Recorder:
    """Stands in for the ledger and the outbox; publishes nothing until ``open`` is set."""

    def __init__(self) -> None:
        self.open, self.idle = asyncio.Event(), asyncio.Event()
        self.delivered: list[Committed] = []
        self.released: list[object] = []

    def release(self, tasks: list[object]) -> None:
        self.released += tasks

    async def deliver(self, committed: Committed) -> None:
        await self.open.wait()
        self.delivered.append(committed)
        if not committed.controls:
            self.idle.set()


def cancelled(count: int, task: object) -> Committed:
    attempts = tuple((UUID(int=number), 1) for number in range(count))
    controls = [tell.control for tell in cancelling.cancelled(AttemptsCancelled("r", attempts, 0))]
    return Committed(tasks=[task], controls=controls)  # type: ignore[list-item]


async def test_attempts_that_control_messages_name_count_too() -> None:
    recorder = Recorder()
    queue = PublishQueue(recorder, recorder)  # type: ignore[arg-type]
    running = asyncio.create_task(queue.run())
    first, second = cancelled(MOST // 2, "first"), cancelled(MOST // 2, "second")
    queue.add(first)
    queue.add(second)
    assert recorder.released == ["second"], "the relay sends its task"
    queue.add(last := Committed())
    recorder.open.set()
    await recorder.idle.wait()
    assert recorder.delivered == [first, last]
    recorder.idle.clear()
    queue.add(large := cancelled(MOST, "large"))  # alone it fits, however large it is
    while recorder.delivered[-1] is not large:
        await asyncio.sleep(0)
    running.cancel()
