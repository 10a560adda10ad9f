"""Ends the leases of tasks that no worker says he has: their processes have died. So do cancelled attempts end.

Only silence that was listened to counts: this coordinator must have read announcements for as long as a lease lasts,
without a gap, and every announcement and every result must be committed (``read_progress``): a worker may say there
that he has the task, or has done it. And it must have been able to speak all the time: an alarm of the broker silences
all who publish, and leaves those who read in peace.
A clock that is set counts as a gap: by it, leases of workers that speak may seem to be over until they speak again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import groupby

from flowkit.broker.protocol import Broker, Outgoing, QueueState
from flowkit.coordinator.clock_steps import ClockSteps
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.presence import Presence
from flowkit.coordinator.read_progress import ReadProgressRecorder
from flowkit.flow import cancelling, slots
from flowkit.flow.events import LeaseExpired
from flowkit.flow.overdue import carries_timeout
from flowkit.store.protocol import CancelledAttempt, Transaction
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
LIMIT = 500  # leases a look
UNHEARD = 10_000  # cancelled attempts a look; the next look goes on behind them


class Silence:
    """Looks for leases that are over.

    Args:
        broker: accepts what workers publish, or does not.
        topology: the names there.
        ledger: of this coordinator.
        outbox: of this coordinator.
        presence: reads the announcements.
        progress: knows what all coordinators have committed.
        lasting: seconds that a lease lasts.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, presence: Presence, *,
                 progress: ReadProgressRecorder, lasting: float) -> None:  # fmt: skip
        self._broker, self._ledger, self._outbox = broker, ledger, outbox
        self._topology = topology
        # To nobody: no node has an empty name. Transient, as announcements are.
        self._probe = Outgoing(topology.name("tasks"), "", b"{}", "flowkit.probe", durable=False)
        self._presence, self._progress, self._lasting = presence, progress, lasting
        self._every, self._patience = lasting / 18, lasting / 3
        self._reconnects = presence.consumer.reconnects
        self._clock_steps = ClockSteps(ledger)
        self._looked = self._since = 0.0  # by the loop's clock: the last look, and the first one after a gap
        # Where the look before ended. Those whose messages wait in their queues are found each time: they must not
        # keep any number of others from being looked at.
        self._after: CancelledAttempt | None = None

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._every)
            while await self.look() == LIMIT:
                pass

    async def look(self) -> int:
        """One look.

        Returns:
            how many leases were over.
        """
        await self._note_steps()  # also of those before it has listened for long enough
        if not await self._has_listened():
            return 0
        after = self._after
        over, unheard, _ = await self._find(after)
        self._after = unheard[-1] if len(unheard) == UNHEARD else None
        if not (over or unheard) or not await self._progress.everything_committed():
            return 0
        # Without those that were announced in what was committed meanwhile.
        suspects = {*over, *unheard}
        over, unheard, now = await self._find(after)
        over = [lease for lease in over if lease in suspects]
        unheard = [attempt for attempt in unheard if attempt in suspects]
        if not (over or unheard) or not await self._has_listened():
            return 0
        await self._give_up(unheard, now)
        if not over:
            return 0
        logger.warning("%d leased tasks run nowhere any more: their workers fell silent", len(over),
                       extra={"action": "lease_expired", "tasks": len(over)})  # fmt: skip
        ended = await self._ledger.commit_possible(over)
        await self._outbox.deliver_all(ended)
        return len(over) if ended else 0

    async def _find(self, after: CancelledAttempt | None) -> tuple[list[LeaseExpired], list[CancelledAttempt], float]:
        """Leases that are over and cancelled attempts that nobody announces, and when; none when a clock was set."""

        def find(transaction: Transaction) -> tuple[list[LeaseExpired], list[CancelledAttempt], float]:
            now = transaction.now()
            transaction.shorten_leases(now + self._lasting)
            unheard = transaction.unheard_attempts(now - self._lasting, UNHEARD, after=after)
            return transaction.expired_leases(now, LIMIT), unheard, now

        over, unheard, now = await self._ledger.transact(find)
        if await self._note_steps():  # behind what was found by that clock
            return [], [], now
        return over, unheard, now

    async def _give_up(self, unheard: Sequence[CancelledAttempt], now: float) -> None:
        """Free the slots of cancelled attempts that no worker announces and no queue hides."""
        gone: list[CancelledAttempt] = []
        timeouts = self._outbox.queue_timeouts
        for node, attempts in groupby(sorted(unheard, key=_node), _node):
            queue = await self._broker.inspect(self._topology.tasks(node).name) or QueueState(ready=0, consumers=0)
            for attempt in attempts:
                unheard_for = self._unheard_for(attempt, now)
                timeout = timeouts.get(node) if carries_timeout(attempt.attempt, attempt.tries) else None
                if cancelling.is_gone(queue.ready, queue.consumers, unheard_for, self._lasting, timeout):
                    gone.append(attempt)
        if gone:
            await self._ledger.transact(lambda transaction: transaction.give_up(gone))
            logger.warning("%d cancelled tasks of limited nodes run nowhere any more: their slots are free", len(gone),
                           extra={"action": "slots_freed", "tasks": len(gone)})  # fmt: skip
            self._ledger.freed.set()

    def _unheard_for(self, attempt: CancelledAttempt, now: float) -> float:
        """For how many seconds, as far as clocks that are set tell."""
        clock = asyncio.get_running_loop().time()
        if attempt.heard_at > now:  # written before a clock was set back, and not heard of since
            return clock - self._since
        return min(now - attempt.heard_at, self._clock_steps.steady_for(clock))

    async def _note_steps(self) -> bool:
        """Whether the clock was set: then it has not listened until now."""
        stepped = await self._clock_steps.check()
        if stepped:
            self._since = asyncio.get_running_loop().time()
        return stepped

    async def _has_listened(self) -> bool:
        consumer, speaks = self._presence.consumer, await self._broker.publish([self._probe]) == [None]
        gap = not speaks or not consumer.connected or self._reconnects != consumer.reconnects or self._stood_still()
        now = asyncio.get_running_loop().time()
        if gap:
            self._since = now
        self._looked, self._reconnects = now, consumer.reconnects
        return now - self._since >= self._lasting

    def _stood_still(self) -> bool:
        """Whether this process or its store did, or what reads the announcements does: who spoke was not heard."""
        now = asyncio.get_running_loop().time()
        return now - self._looked > self._patience or self._ledger.away or self._presence.behind > self._patience


def _node(attempt: CancelledAttempt) -> str:
    return slots.node_of(attempt.slot)
