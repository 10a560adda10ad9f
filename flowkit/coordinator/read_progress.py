"""Writes how far this coordinator has committed what was delivered to it, and asks whether all of them have.

Whoever concludes from silence that nobody has a task asks here first: a result or an announcement may have been
delivered to a coordinator and wait there for a store that answers slowly. The rule is ``flow.read_progress``.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol
from uuid import UUID

from flowkit.broker.protocol import Broker, Consumer
from flowkit.coordinator.ledger import Ledger
from flowkit.flow.read_progress import QueueCounts, ReadProgress, Verdict, everything_committed
from flowkit.store.protocol import Transaction
from flowkit.wire.topology import Queue

logger = logging.getLogger(__name__)
POLL = 0.25  # seconds between looks at the rows while others have not answered
PATIENCE = 3  # intervals until another coordinator must have answered: it writes its row in each
REMINDER = 600.0  # seconds between warnings of consumers without a row


class Reader(Protocol):
    """Takes the deliveries of one queue, in their order."""

    @property
    def consumer(self) -> Consumer:
        """Of the queue."""

    @property
    def committed(self) -> int:
        """The tag of a delivery: it and all before it are committed."""


class _Mark(NamedTuple):
    """What had been delivered at the end of a beat: the newest tag of each consumer."""

    beat: int
    tags: Sequence[int]


class ReadProgressRecorder:
    """Writes the row of this process every ``every`` seconds.

    Args:
        broker: where the queues are.
        ledger: of this coordinator.
        name: of this coordinator.
        readers: of the queues that are judged.
        every: seconds between beats.
        gone: seconds after which the row of a coordinator that has not written it is removed. One that writes again
            makes it anew.
        alone: no other coordinator can be at work on this store: the row is written only when somebody asks.
    """

    def __init__(self, broker: Broker, ledger: Ledger, name: str, readers: Mapping[Queue, Reader], *, every: float,
                 gone: float, alone: bool) -> None:  # fmt: skip
        self._broker, self._ledger, self._clock = broker, ledger, asyncio.get_running_loop().time
        self._queues, self._readers = [queue.name for queue in readers], list(readers.values())
        self._every, self._gone, self._alone = every, gone, alone
        self._row = ReadProgress(uuid.uuid4(), name, 0, 0, 0)
        self._sessions: Sequence[int | None] = [None] * len(readers)
        self._mark: _Mark | None = None
        self._seen: dict[UUID, tuple[int, float]] = {}  # beats of others, and when they were new, by the loop's clock
        self._beating = asyncio.Lock()
        self._warned: float | None = None  # when, by the loop's clock

    async def run(self) -> None:
        """For ever."""
        while not self._alone:
            await self.beat()
            await asyncio.sleep(self._every)

    async def everything_committed(self) -> bool:
        """Whether all that had been published to the queues when this was called is committed, by whomever.

        It may take some seconds. False also where nobody can tell.
        """
        before = await self.beat()
        queues = [await self._inspect(queue) for queue in self._queues]
        after = await self.beat()
        until = self._clock() + PATIENCE * self._every
        while True:
            now = await self.beat()
            verdict = everything_committed(before, queues, after, now)
            if verdict is not Verdict.UNDECIDED or self._clock() >= until:
                break
            await asyncio.sleep(min(POLL, self._every))
        if verdict is Verdict.YES:
            self._warned = None
        else:
            self._warn_of_strangers(len(before), queues)
        return verdict is Verdict.YES

    async def beat(self) -> dict[UUID, ReadProgress]:
        """Write the row, remove those of others that are gone, and return all that are there."""
        async with self._beating:
            beat, sessions = self._row.beat + 1, self._current_sessions()
            attached, committed = self._row.attached, self._row.committed
            if None in sessions or sessions != self._sessions:
                attached, self._mark = beat, None
            elif self._mark is not None and self._is_committed(self._mark):
                committed, self._mark = self._mark.beat, None
            self._sessions = sessions
            self._row = row = self._row._replace(beat=beat, attached=attached, committed=committed)

            def work(transaction: Transaction) -> dict[UUID, ReadProgress]:
                rows = {other.id: other for other in transaction.record_progress(row)}
                if gone := [other.id for other in rows.values() if self._is_gone(other)]:
                    transaction.remove_progress(gone)
                return {id_: other for id_, other in rows.items() if id_ not in gone}

            rows = await self._ledger.transact(work)
            self._note(rows)
            if self._mark is None:
                self._mark = await self._delivered(beat)
            return rows

    async def withdraw(self) -> None:
        """Remove the row: the consumers are closed."""
        await self._ledger.transact(lambda transaction: transaction.remove_progress([self._row.id]))

    def _current_sessions(self) -> list[int | None]:
        consumers = [reader.consumer for reader in self._readers]
        return [consumer.session if consumer.connected else None for consumer in consumers]

    def _is_committed(self, mark: _Mark) -> bool:
        return all(reader.committed >= tag for reader, tag in zip(self._readers, mark.tags, strict=True))

    async def _delivered(self, beat: int) -> _Mark | None:
        """What has been delivered by now; None when a consumer is not connected, or its connection does not answer."""
        tags: list[int] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(max(self._every, 1)):
                for reader in self._readers:
                    tag = await reader.consumer.wait_arrived()
                    if tag is None:
                        return None
                    tags.append(tag)
        return _Mark(beat, tags) if len(tags) == len(self._readers) else None

    def _note(self, rows: Mapping[UUID, ReadProgress]) -> None:
        """Remember since when the rows of others have not changed."""
        now = self._clock()
        unchanged = {id_: seen for id_, seen in self._seen.items() if id_ in rows and seen[0] == rows[id_].beat}
        self._seen = {row.id: unchanged.get(row.id, (row.beat, now)) for row in rows.values()}

    def _is_gone(self, row: ReadProgress) -> bool:
        """Whether another coordinator wrote this row, and has not for so long that it counts as dead."""
        if row.id == self._row.id or self._alone:
            return row.id != self._row.id
        beat, since = self._seen.get(row.id, (0, 0.0))
        return beat == row.beat and self._clock() - since > self._gone

    async def _inspect(self, queue: str) -> QueueCounts | None:
        state = await self._broker.inspect(queue)
        return None if state is None else QueueCounts(state.ready, state.consumers)

    def _warn_of_strangers(self, rows: int, queues: Sequence[QueueCounts | None]) -> None:
        """Say now and then that nobody may judge: it is an older coordinator, or somebody's own consumer."""
        now = self._clock()
        crowded = {name: queue.consumers for name, queue in zip(self._queues, queues, strict=True)
                   if queue is not None and queue.consumers > rows}  # fmt: skip
        if crowded and (self._warned is None or now - self._warned > REMINDER):
            self._warned = now
            name, consumers = next(iter(crowded.items()))
            logger.warning("queue %s has %d consumers, and %d coordinators have a row in the store: lost tasks are not "
                           "recognised while an older coordinator or another consumer reads it", name, consumers, rows,
                           extra={"action": "unknown_consumer", "queue": name})  # fmt: skip
