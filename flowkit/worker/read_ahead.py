"""Some tasks more than those that run, as long as the tasks of a node are short.

    short tasks ─► one more consumer, which holds the next tasks ─► they wait for over a second ─► they go back

While results wait for their confirms, the next tasks run: a worker with one slot gets up to half as much done again.
But what is read ahead waits for those that run, although another worker may be idle. A consumer's prefetch cannot be
lowered: so those that hold what waits are ended, and new ones begin when slots are free. Decision 0026.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from flowkit.broker.protocol import Consumer
from flowkit.worker.execution import Execution, Taken
from flowkit.worker.intake import Intake

SHORT = 0.1  # seconds that tasks take on average, for one more to be read ahead
SAMPLES = 8  # tasks that must have ended since the last long one
MOST_CONSUMERS = 8  # of one queue; more are replaced by few
PATIENCE = 1.0  # seconds that a task waits for another one before it goes back

_log = logging.getLogger(__name__)


class ReadAhead:
    """Reads ahead for one node.

    Args:
        intake: of the node.
        taken: the executions of this process.
        put_back: leaves executions to the next worker.
        announce: says how many consumers there are now.
    """

    def __init__(
        self,
        intake: Intake,
        taken: Taken,
        *,
        put_back: Callable[[Iterable[Execution]], Awaitable[None]],
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._intake, self._taken = intake, taken
        self._put_back, self._announce = put_back, announce
        self._mean, self._samples = 0.0, 0
        self._dropped: list[Consumer] = []  # stopped, until what they hold is answered

    def record(self, seconds: float) -> None:
        """A task of the node has run for so many seconds, and has ended."""
        self._samples += 1
        self._mean += (seconds - self._mean) / min(self._samples, SAMPLES)
        if (
            self._samples >= SAMPLES
            and self._mean < SHORT
            and sum(self._intake.consumers.values()) == self._intake.slots
        ):
            self._intake.add_consumer((self._intake.slots + 3) // 4)

    async def run(self) -> None:
        """Give back what waits for too long, until cancelled."""
        while True:
            # With fewer consumers than slots (their tasks are leased) nothing may arrive that would set ``waiting``.
            enough = sum(self._intake.consumers.values()) >= self._intake.slots
            if enough and not self._dropped and not self._waiting(0):
                await self._intake.waiting.wait()
            self._intake.waiting.clear()
            if late := self._waiting(PATIENCE):
                await self._give_back(late)
            elif len(self._intake.consumers) > MOST_CONSUMERS:
                await self._drop(sorted(self._intake.consumers, key=self._intake.consumers.__getitem__)[:-1])
            await self._close_dropped()
            if (free := self._intake.slots - self._most()) > 0:
                self._intake.add_consumer(free)
            await asyncio.sleep(PATIENCE / 4)

    def _executions(self) -> list[Execution]:
        return [execution for execution in self._taken if execution.task.node == self._intake.node]

    def _most(self) -> int:
        """How many tasks of the node there may be at a time: what consumers may hold, and what none of them holds."""
        consumers = self._intake.consumers
        held = [{consumer for consumer, _ in execution.deliveries} for execution in self._executions()]
        return sum(consumers.values()) + sum(by.isdisjoint(consumers) for by in held)

    def _waiting(self, patience: float) -> list[Execution]:
        """The tasks of the node that have waited for another one of it for so long."""
        executions = self._executions()
        if sum(execution.since is not None for execution in executions) < self._intake.slots:
            return []  # they wait for a task that has to run alone
        before = asyncio.get_running_loop().time() - patience
        return [one for one in executions if one.since is None and one.deliveries and one.taken <= before]

    async def _give_back(self, late: Sequence[Execution]) -> None:
        """Leave tasks to the next worker, and take no other ones in their place."""
        self._mean, self._samples = 0.0, 0
        await self._drop(dict.fromkeys(consumer for execution in late for consumer, _ in execution.deliveries))
        await self._put_back([execution for execution in late if execution.since is None])
        _log.debug("node %s: a task that waited for a long one goes back to the queue", self._intake.node,
                   extra={"action": "put_back", "node": self._intake.node})  # fmt: skip

    async def _drop(self, consumers: Iterable[Consumer]) -> None:
        """Take nothing more from these; what they hold can still be answered."""
        going = [consumer for consumer in consumers if consumer in self._intake.consumers]
        for consumer in going:
            self._intake.drop_consumer(consumer)
        self._dropped += going
        # Before there are fewer: the coordinator takes consumers that nobody announces for those of foreign workers.
        await self._announce()
        for consumer in going:
            await consumer.stop()

    async def _close_dropped(self) -> None:
        """End the consumers that hold nothing any more."""
        held = {consumer for execution in self._taken for consumer, _ in execution.deliveries}
        done = [consumer for consumer in self._dropped if consumer not in held]
        self._dropped = [consumer for consumer in self._dropped if consumer in held]
        for consumer in done:
            await consumer.close()
