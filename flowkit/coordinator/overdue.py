"""Fails tasks that no worker took within their node's ``queue_timeout``.

A worker that takes a task too late says so itself (``start_by`` in the message). But where no worker is alive, or all
of them are busy for hours, nobody takes it at all. So the coordinator looks for such tasks, and fails one only when it
knows that nobody has it, for a row says ``queued`` also while a worker runs the task: at two looks its time has passed
by more than several announcements take, no worker lists it, its queue has no more consumers than workers that announce
themselves (a foreign one may have taken it, and says nothing), and every result and every announcement is committed
(``read_progress``). When a clock was set, times in rows do not tell how long tasks have waited: none fails until its
node's ``queue_timeout`` has passed since.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from flowkit.broker.protocol import Broker
from flowkit.coordinator.clock_steps import ClockSteps
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.presence import Presence, consumers_of
from flowkit.coordinator.read_progress import ReadProgressRecorder
from flowkit.flow.events import QueueExpired
from flowkit.store.protocol import SentTask, Transaction
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
LIMIT = 500  # tasks a page
NODES = 100  # in one statement


class Overdue:
    """Looks every ``every`` seconds at tasks whose time is over by ``silence`` seconds.

    Args:
        broker: where tasks are waiting.
        topology: the names there.
        ledger: of this coordinator.
        outbox: of this coordinator; it knows what nodes have announced.
        presence: reads the announcements.
        progress: knows what all coordinators have committed.
        every: seconds between looks.
        silence: seconds after which a worker that was not heard of counts as gone.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, presence: Presence, *,
                 progress: ReadProgressRecorder, every: float, silence: float) -> None:  # fmt: skip
        self._broker, self._topology = broker, topology
        self._ledger, self._outbox, self._consumer = ledger, outbox, presence.consumer
        self._progress = progress
        self._every, self._silence = every, silence
        self._suspects: set[SentTask] = set()
        self._reconnects = self._consumer.reconnects
        self._clock_steps = ClockSteps(ledger)
        self._stepped: float | None = None  # when the store's clock was set, by the loop's clock
        self._since: float | None = None  # when it began to listen without a gap, by the loop's clock

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._every)
            await self._broker.wait_connected()
            await self.look()

    async def look(self) -> int:
        """One look.

        Returns:
            how many tasks were failed, because the look before found that nobody had them too.
        """
        timeouts = await self._current_timeouts()
        if not timeouts:
            self._suspects.clear()
            return 0
        missed = await self._all_missed(timeouts)
        over, self._suspects = missed & self._suspects, missed - self._suspects
        if over and not await self._progress.everything_committed():
            self._suspects |= over
            return 0
        if over:  # what was committed meanwhile, or has been announced, is not among them any more
            over &= await self._all_missed(timeouts)
            timeouts = await self._current_timeouts()
            over = {task for task in over if task.node in timeouts}
        if over:
            logger.warning("%d tasks were not taken by any worker in time", len(over),
                           extra={"action": "queue_timeout", "tasks": len(over)})  # fmt: skip
            events = [
                QueueExpired(task.run_id, task.task_id, task.attempt, task.sent_at, timeouts[task.node])
                for task in sorted(over, key=lambda task: (task.run_id, task.task_id))
            ]
            for first in range(0, len(events), LIMIT):
                ended = await self._ledger.commit_possible(events[first : first + LIMIT])
                await self._outbox.deliver_all(ended)
        return len(over)

    async def _current_timeouts(self) -> dict[str, float]:
        """Timeouts of nodes that can be judged now: none after a gap in listening, fewer after a step of the clock."""
        if await self._clock_steps.check():
            self._stepped, self._since = asyncio.get_running_loop().time(), None
        timeouts = self._measurable(self._outbox.queue_timeouts)
        return timeouts if self._has_listened() else {}

    def _measurable(self, timeouts: Mapping[str, float]) -> dict[str, float]:
        """Those that would have passed since the clock was set, if it was."""
        if self._stepped is None:
            return dict(timeouts)
        since = asyncio.get_running_loop().time() - self._stepped - self._silence
        return {node: timeout for node, timeout in timeouts.items() if timeout <= since}

    def _has_listened(self) -> bool:
        """Whether announcements have been read without a gap for as long as a worker may be silent."""
        now, reconnects = asyncio.get_running_loop().time(), self._consumer.reconnects
        if not self._consumer.connected or reconnects != self._reconnects or self._since is None:
            self._since = now
        self._reconnects = reconnects
        return now - self._since >= self._silence

    async def _all_missed(self, timeouts: Mapping[str, float]) -> set[SentTask]:
        nodes = sorted(timeouts)
        missed: set[SentTask] = set()
        for first in range(0, len(nodes), NODES):
            missed |= await self._missed({node: timeouts[node] for node in nodes[first : first + NODES]})
        return missed

    async def _missed(self, timeouts: dict[str, float]) -> set[SentTask]:
        """What was sent long enough ago, page by page, less what somebody may have."""
        missed: set[SentTask] = set()
        late, workers = await self._ledger.transact(partial(self._late, timeouts, None))
        while late:
            missed |= await self._unclaimed(late, workers)
            if len(late) < LIMIT:
                break
            late, workers = await self._ledger.transact(partial(self._late, timeouts, late[-1]))
        return missed

    def _late(
        self, timeouts: Mapping[str, float], after: SentTask | None, transaction: Transaction
    ) -> tuple[list[SentTask], list[wire.Worker]]:
        until = transaction.now() - self._silence
        late = transaction.overdue({node: until - timeout for node, timeout in timeouts.items()}, LIMIT, after=after)
        return late, transaction.heard(until) if late else []

    async def _unclaimed(self, late: Sequence[SentTask], workers: Sequence[wire.Worker]) -> set[SentTask]:
        listed = {entry.task_id for worker in workers for entry in worker.running}
        serving = consumers_of(workers)
        free = {node for node in {task.node for task in late} if await self._announced_only(node, serving[node])}
        return {task for task in late if task.node in free and task.task_id not in listed}

    async def _announced_only(self, node: str, workers: int) -> bool:
        queue = await self._broker.inspect(self._topology.tasks(node).name)
        return queue is None or queue.consumers <= workers
