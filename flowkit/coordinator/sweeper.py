"""Repairs what no message will: tasks whose messages vanished, counters that disagree with their rows.

A scope whose last task ended while its counter was too high ends when the counter is corrected.

A task's message can vanish without a trace: somebody purged the queue, or the broker came back older than the store.
A task is never sent again for its age alone: only when, at two looks, its queue is empty and no worker lists it, and
every result and every announcement is committed (``read_progress``). Where there are several coordinators each one
hears of a worker now and then only, so the store is asked what workers said last.

When a queue was deleted, messages were lost for certain: then it looks sooner.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from flowkit.broker.protocol import Broker
from flowkit.coordinator.clock_steps import ClockSteps
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.presence import Presence, consumers_of
from flowkit.coordinator.publish_queue import PublishQueue
from flowkit.coordinator.read_progress import ReadProgressRecorder
from flowkit.flow.events import Drained
from flowkit.store.protocol import SentTask, Transaction
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
PAGE = 1_000  # tasks in a transaction: it holds up nobody
SOON = 4  # looks: what was sent just before a queue was deleted is old enough at the second, and sent at the third
PAGES = 10  # in a look; the next one goes on behind them


class Sweeper:
    """Looks every ``every`` seconds at tasks that were sent over ``after`` seconds ago.

    Args:
        broker: where tasks are waiting.
        topology: the names there.
        ledger: of this coordinator.
        presence: reads the announcements.
        publishing: takes what follows from corrected counters.
        progress: knows what all coordinators have committed.
        every: seconds between looks.
        after: seconds that a task must have been out.
        silence: seconds after which a worker that was not heard of counts as gone.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, presence: Presence,
                 publishing: PublishQueue, *, progress: ReadProgressRecorder, every: float, after: float,
                 silence: float) -> None:  # fmt: skip
        self._broker, self._topology, self._ledger, self._presence = broker, topology, ledger, presence
        self._publishing, self._progress = publishing, progress
        self._every, self._after, self._silence = every, after, silence
        self._clock_steps = ClockSteps(ledger)
        self._suspects: set[SentTask] = set()
        self._behind: SentTask | None = None  # where the next look goes on
        self._reconnects = presence.consumer.reconnects
        self._soon = 0  # looks that are to come sooner, and at younger tasks

    async def run(self) -> None:
        """For ever; for a while sooner when messages were lost for certain."""
        while True:
            every = min(self._every, self._silence) if self._soon else self._every
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._ledger.lost.wait()
            if self._ledger.lost.is_set():
                self._ledger.lost.clear()
                self._soon = SOON
            elif self._soon:
                self._soon -= 1
            await self._broker.wait_connected()
            await self.look()

    async def look(self) -> int:
        """One look: at those that were missing at the look before, and for others that are missing.

        Returns:
            how many tasks are to be sent again.
        """
        for committed in await self._ledger.commit_possible(await self._ledger.transact(_recount)):
            self._publishing.add(committed)
        stepped = await self._clock_steps.check()
        if not self._heard_throughout() or stepped:
            self._suspects = set()
            return 0
        lost, self._suspects = await self._missing(self._suspects), set()
        if lost and not await self._progress.everything_committed():
            self._suspects, lost = lost, set()
        if lost:  # what was announced meanwhile is not among them any more
            lost &= await self._missing(lost)
            if not self._heard_throughout() or await self._clock_steps.check():
                return 0
        again = await self._ledger.transact(lambda transaction: transaction.unsend(list(lost))) if lost else 0
        if again:
            logger.warning("%d tasks vanished from their queues and are sent again", again,
                           extra={"action": "sweep", "tasks": again})  # fmt: skip
        for _ in range(PAGES):
            page = await self._ledger.transact(self._page)
            self._suspects |= await self._missing(page)
            self._behind = page[-1] if len(page) == PAGE else None
            if self._behind is None:
                break
        return again

    def _page(self, transaction: Transaction) -> list[SentTask]:
        after = min(self._after, self._silence) if self._soon else self._after
        return transaction.sent_before(transaction.now() - after, PAGE, after=self._behind)

    def _heard_throughout(self) -> bool:
        """Whether announcements were read without a gap since the look before."""
        before, self._reconnects = self._reconnects, self._presence.consumer.reconnects
        return self._presence.consumer.connected and before == self._reconnects

    async def _missing(self, waiting: Iterable[SentTask]) -> set[SentTask]:
        workers = await self._ledger.transact(lambda transaction: transaction.heard(transaction.now() - self._silence))
        listed = {entry.task_id for worker in workers for entry in worker.running}
        serving = consumers_of(workers)
        by_node: dict[str, list[SentTask]] = defaultdict(list)
        for task in waiting:
            if task.task_id not in listed:
                by_node[task.node].append(task)
        if not by_node:
            return set()
        missing: set[SentTask] = set()
        for node, tasks in by_node.items():
            queue = await self._broker.inspect(self._topology.tasks(node).name)
            # More consumers than announced workers: a foreign one may hold the tasks, and says nothing.
            if queue is None or (queue.ready == 0 and queue.consumers <= serving[node]):
                missing.update(tasks)
        return missing


def _recount(transaction: Transaction) -> list[Drained]:
    """Correct counters; return the scopes whose last task ended while their counters were too high."""
    wrong = transaction.recount()
    if wrong:
        logger.error("%d counters of scopes were wrong and are corrected", wrong, extra={"action": "recount"})
    return transaction.drained(PAGE)
