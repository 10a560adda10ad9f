"""Sends tasks that no message brought about: held ones when they are due, and those that were committed and never sent.

Rows of tasks and of ended runs are marked until the broker has confirmed their messages: these marks are the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

from flowkit.broker.protocol import Broker
from flowkit.coordinator.commit import Committed
from flowkit.coordinator.isolation import Skipped, process_apart
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.flow.events import Event
from flowkit.store.protocol import EndedRun, Sendable, Transaction

logger = logging.getLogger(__name__)
LIMIT = 500  # rows a look


class Timers:
    """Releases held tasks that are due, and sends them."""

    def __init__(self, ledger: Ledger, outbox: Outbox, *, every: float) -> None:
        self._ledger, self._outbox, self._every = ledger, outbox, every

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Release what is due now, page by page: the next one while one is being sent, never more than one."""
        taken: list[Sendable] = []
        try:
            async with asyncio.TaskGroup() as group:
                sending: asyncio.Task[None] | None = None
                while True:
                    due = await self._ledger.transact(_due)
                    self._ledger.take(due.tasks)
                    taken += due.tasks
                    if due.more:
                        self._ledger.freed.set()
                    failed = await self._ledger.commit_possible(due.failures)
                    taken += [task for committed in failed for task in committed.tasks]
                    if sending is not None:
                        await sending
                    sending = group.create_task(self._send(due.tasks, failed))
                    if due.found < LIMIT or (due.failures and not failed):
                        return
        finally:
            self._ledger.release(taken)  # all are sent, unless something has failed

    async def _send(self, tasks: list[Sendable], failed: list[Committed]) -> None:
        await self._outbox.deliver_all(await self._ledger.commit_possible(await self._outbox.send(tasks)))
        await self._outbox.deliver_all(failed)


class _Due(NamedTuple):
    """Held tasks whose time has come."""

    tasks: list[Sendable]  # to be sent
    failures: Sequence[Event]  # of tasks that can never be sent
    more: bool  # slots of limited nodes may have room for more
    found: int  # how many were due


def _due(transaction: Transaction) -> _Due:
    now, limits = transaction.now(), transaction.node_limits()
    released = transaction.release_due(now, LIMIT, limits)
    admitted = transaction.admit({*released.slots, *transaction.slots_due(now, LIMIT)}, limits)
    tasks = [*released.tasks, *transaction.sendables(admitted.tasks)]
    return _Due(tasks, released.failures, admitted.more, released.count)


class Relay:
    """Sends released tasks that nobody sent, and announces ends of runs that nobody announced.

    That is after a crash between commit and publish, a COMMIT whose answer was lost, or a lost broker.

    Args:
        after: seconds that a task must have been unsent, so that whoever committed it can send it.
        every: seconds between looks.
    """

    def __init__(self, broker: Broker, ledger: Ledger, outbox: Outbox, *, after: float, every: float) -> None:
        self._broker, self._ledger, self._outbox = broker, ledger, outbox
        self._after, self._every = after, every
        self._skipped = Skipped("unsent tasks", "relay_failed")

    async def run(self) -> None:
        """For ever; rests while the link is down or blocked."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):  # wait_for may lose a cancellation
                    await self._ledger.released.wait()
            self._ledger.released.clear()
            await self._broker.wait_connected()
            await self._outbox.announcements.retry()
            while await self.look() == LIMIT:
                pass
            while await self.announce() == LIMIT:
                pass

    async def catch_up(self, *, after: float | None) -> None:
        """Send and announce what an earlier process left, before anything new can look the same."""
        await self.look(after=after)
        await self.announce(after=after)

    async def look(self, *, after: float | None = None) -> int:
        """Send what has been unsent for ``after`` seconds (the relay's own by default)."""
        wait = self._after if after is None else after
        refusing = self._outbox.refusals.nodes()  # their tasks are published again at their own pace

        def work(transaction: Transaction) -> list[Sendable]:
            return transaction.unsent(before=transaction.now() - wait, limit=LIMIT, without=refusing)

        # What is in flight may be written while this looks, and what is written just then was in flight before.
        before = self._outbox.in_flight()
        unsent = await self._ledger.transact(work)
        mine = before | self._outbox.in_flight()
        stranded = [task for task in unsent if task.mark not in mine]
        if stranded:
            logger.info("relaying %d tasks that were never sent", len(stranded), extra={"action": "relay"})
        published, failed = await process_apart(stranded, self._outbox.publish_tasks)
        for task, error in failed:
            self._skipped.add(f"task {task.task_id} of run {task.run_id}", error)
        failures = [failure for failures, _ in published for failure in failures]
        refused = [task for _, tasks in published for task in tasks]
        if refused:  # they keep their places in the order
            await self._ledger.transact(lambda transaction: transaction.restore_unsent(refused))
        await self._outbox.deliver_all(await self._ledger.commit_possible(failures))
        # Sent rows must not be found again by the very next look.
        await self._ledger.flush_now()
        return len(unsent)

    async def announce(self, *, after: float | None = None) -> int:
        """Announce ends of runs that have been unannounced for ``after`` seconds (the relay's own by default)."""
        wait = self._after if after is None else after

        def work(transaction: Transaction) -> list[EndedRun]:
            return transaction.unannounced(before=transaction.now() - wait, limit=LIMIT)

        before = self._outbox.announcements.in_flight()
        found = await self._ledger.transact(work)
        mine = before | self._outbox.announcements.in_flight()
        stranded = [run for run in found if run.mark not in mine]
        if stranded:
            logger.info("announcing the ends of %d runs that were never announced", len(stranded),
                        extra={"action": "relay_ends"})  # fmt: skip
            await self._outbox.announcements.announce(stranded)
            await self._ledger.flush_now()
        return len(found)


async def send(ledger: Ledger, outbox: Outbox, tasks: list[Sendable]) -> None:
    """Send tasks that no message brought about, and write that they are sent."""
    await outbox.deliver_all(await ledger.commit_possible(await outbox.send(tasks)))
    # Released and sent rows must not be found again by the very next look.
    await ledger.flush_now()
