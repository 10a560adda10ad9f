"""Nodes whose queues refuse tasks, and the loop that publishes their tasks again, each node at its own pace.

A queue refuses when it is full (``x-overflow: reject-publish``), or when it was deleted. Its tasks stay unsent in the
store, and no other node waits for them. New tasks of such a node are not published past the older ones: they are left
to this loop too, until the queue has accepted all that waited.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flowkit.errors import PublishError, QueueFull, Unroutable
from flowkit.flow.refusals import key_of, note
from flowkit.store.protocol import Sendable, Transaction
from flowkit.wire.topology import Topology

if TYPE_CHECKING:
    from flowkit.broker.protocol import Broker
    from flowkit.coordinator.ledger import Ledger
    from flowkit.coordinator.outbox import Outbox

logger = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts at one node; doubled while none is accepted
FEWEST, MOST = 10, 500  # tasks in an attempt; doubled while all are accepted
SETTLE = 2.0  # seconds without a refusal after which a queue counts as accepting tasks again
OWN_AGE = 1.0  # seconds that a task must have been unsent where another coordinator may be publishing it


@dataclass(slots=True)
class _Refusal:
    """One node. Times are the loop's."""

    reason: str
    next_at: float
    pause: float = FIRST_PAUSE
    batch: int = FEWEST
    sent: int = 0  # tasks accepted since the first refusal
    over: bool = False  # all that waited was accepted: new tasks are published at once


class Refusals:
    """Which nodes' queues refuse tasks, and when each is tried again."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._nodes: dict[str, _Refusal] = {}
        self._added = asyncio.Event()

    def __len__(self) -> int:
        return len(self._nodes)

    def nodes(self) -> list[str]:
        """All of them: the relay leaves their tasks to this loop."""
        return list(self._nodes)

    def holds(self, node: str) -> bool:
        """Whether new tasks of this node are not published yet."""
        refusal = self._nodes.get(node)
        return refusal is not None and not refusal.over

    def record(self, node: str, accepted: int, refused: int, verdict: PublishError | None) -> None:
        """Note what came of an attempt.

        Args:
            node: whose tasks they were.
            accepted: tasks that were confirmed.
            refused: tasks that were not, and stay unsent.
            verdict: why not.
        """
        now, refusal = _now(), self._nodes.get(node)
        if verdict is not None:
            reason = _reason(verdict)
            if refusal is None or refusal.reason != reason:
                queue = self._topology.tasks(node).name
                logger.warning(
                    "queue %s refuses tasks, %s: %d stay in the store and are sent when it accepts them",
                    queue, reason, refused,
                    extra={"action": "queue_refuses", "node": node, "queue": queue, "tasks": refused},
                )  # fmt: skip
                refusal = self._nodes[node] = _Refusal(reason, now + FIRST_PAUSE)
            refusal.over = False
            refusal.pause = FIRST_PAUSE if accepted else min(LONGEST_PAUSE, refusal.pause * 2)
            refusal.batch, refusal.next_at = max(FEWEST, min(MOST, accepted)), now + refusal.pause
            self._added.set()
        elif refusal is not None and accepted and not refusal.over:
            refusal.batch, refusal.next_at = min(MOST, refusal.batch * 2), now
        if refusal is not None:
            refusal.sent += accepted

    def record_none_left(self, node: str) -> None:
        """Note that nothing waits any more, but for what was committed a moment ago."""
        refusal = self._nodes[node]
        if not refusal.over:
            refusal.over, refusal.next_at = True, _now() + SETTLE
            return
        del self._nodes[node]
        queue = self._topology.tasks(node).name
        logger.info("queue %s accepts tasks again: %d that waited are sent", queue, refusal.sent,
                    extra={"action": "queue_accepts", "node": node, "queue": queue, "tasks": refusal.sent})  # fmt: skip

    async def wait_due(self) -> list[tuple[str, int]]:
        """Wait until a node is to be tried.

        Returns:
            those that are, the longest due first, each with how many of its tasks.
        """
        while not (due := sorted((one.next_at, node) for node, one in self._nodes.items() if one.next_at <= _now())):
            self._added.clear()
            soonest = min((one.next_at for one in self._nodes.values()), default=None)
            try:
                async with asyncio.timeout_at(soonest):
                    await self._added.wait()
            except TimeoutError:
                pass
        for _, node in due:
            self._nodes[node].next_at = _now() + FIRST_PAUSE  # unless the attempt says otherwise
        return [(node, self._nodes[node].batch) for _, node in due]

    def fact(self, node: str, now: float) -> tuple[str, str]:
        """What the store notes of a node for ``flowkit runs explain``: key and value."""
        refusal = self._nodes.get(node)
        return key_of(node), note(None if refusal is None or refusal.over else refusal.reason, now)


class RefusedTasks:
    """Publishes what queues refused, again and again, until they accept it.

    Args:
        broker: where to.
        ledger: of this coordinator.
        outbox: of this coordinator.
        age: seconds that a task must have been unsent, so that another coordinator that has it in hand can publish it.
    """

    def __init__(self, broker: Broker, ledger: Ledger, outbox: Outbox, *, age: float) -> None:
        self._broker, self._ledger, self._outbox, self._age = broker, ledger, outbox, age

    async def run(self) -> None:
        """For ever."""
        while True:
            due = await self._outbox.refusals.wait_due()
            await self._broker.wait_connected()
            for node, limit in due:
                await self.retry(node, limit)

    async def retry(self, node: str, limit: int) -> None:
        """Publish the oldest tasks of a node that are unsent, and give back those that are refused again."""
        refusals = self._outbox.refusals
        before = self._outbox.in_flight()
        unsent = await self._ledger.transact(partial(self._claim, node, limit))
        in_flight = before | self._outbox.in_flight()
        failures, refused = await self._outbox.publish_tasks([task for task in unsent if task.mark not in in_flight])
        if len(unsent) < limit and not refused:
            refusals.record_none_left(node)
        await self._ledger.transact(partial(self._settle, node, refused))
        await self._outbox.deliver_all(await self._ledger.commit_possible(failures))
        await self._ledger.flush_now()

    def _claim(self, node: str, limit: int, transaction: Transaction) -> list[Sendable]:
        return transaction.unsent(before=transaction.now() - self._age, limit=limit, node=node)

    def _settle(self, node: str, refused: list[Sendable], transaction: Transaction) -> None:
        transaction.restore_unsent(refused)
        transaction.set_meta(*self._outbox.refusals.fact(node, transaction.now()))


def _reason(verdict: PublishError) -> str:
    if isinstance(verdict, QueueFull):
        return "it is full"
    if isinstance(verdict, Unroutable):
        return "it does not exist"
    return str(verdict)


def _now() -> float:
    return asyncio.get_running_loop().time()
