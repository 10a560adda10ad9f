"""The coordinator's hand on the store: commits that outlast a store that is locked, full or away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice, takewhile
from typing import TypeVar

from flowkit.coordinator.clock_steps import StepDetector
from flowkit.coordinator.commit import Committed, Marks, commit
from flowkit.coordinator.isolation import Skipped, process_apart
from flowkit.errors import StoreUnreachable
from flowkit.flow.events import Commanded, Event
from flowkit.flow.limits import Limits
from flowkit.store.protocol import EndMark, Sendable, SentMark, Store, TaskKey, Transaction
from flowkit.store.views import Queries

logger = logging.getLogger(__name__)
T = TypeVar("T")
Events = Sequence[Event] | Callable[[Transaction], Sequence[Event]]  # or what finds them in the same transaction
TELL_EVERY = 20  # looks at a store that is away: about every minute and a half
BUSY = 100  # events in a transaction, from which on it takes along only the marks whose time has come
BACKOFF = (0.1, 0.2, 0.5, 1, 2, 5)  # seconds between looks at a store that is away; the last one repeats


class Ledger:
    """Transactions that wait while the store is away: messages stay unacknowledged meanwhile, so nothing is lost.

    It also keeps the marks of tasks that the broker confirmed, until the next transaction takes them along. Under load
    that would be before nearly any of these tasks is answered; so a large one takes only what has waited a while.

    Args:
        store: open.
        limits: guards of runs.
        secret: of the store.
        marks_after: seconds that a mark waits at most: what a coordinator that dies has sent in them goes out again.
        epoch: of the broker, as the store counts its refills: what an earlier one confirmed is gone.
    """

    def __init__(self, store: Store, limits: Limits, secret: bytes, *, marks_after: float = 1, epoch: int = 0) -> None:
        self._store, self._limits, self._secret = store, limits, secret
        self._marks_after = marks_after
        self._sent: dict[TaskKey, tuple[int, float]] = {}  # attempt, and when by the loop's clock; oldest first
        self._writing: list[list[SentMark]] = []  # in transactions just now
        self.epoch = epoch
        self._announced: dict[str, float] = {}  # runs whose end the broker confirmed, and when they ended
        self._announced_writing: set[EndMark] = set()  # in transactions just now
        self._some_sent = asyncio.Event()
        self._skipped = Skipped("what time brought", "event_failed")
        self.failed, self.answered = asyncio.Event(), asyncio.Event()  # whether the last transaction got through
        self._steps = StepDetector()
        self.queue_timeouts: Mapping[str, float] = {}  # seconds, by node, as far as they were announced
        self.in_hand: set[SentMark] = set()  # committed here, and not yet sent
        self.released = asyncio.Event()  # tasks were released as a set, and wait for the relay
        self.lost = asyncio.Event()  # a queue was deleted with what was in it: the sweeper looks sooner
        self.freed = asyncio.Event()  # slots of limited nodes may have room that no transaction filled

    @property
    def away(self) -> bool:
        """Whether the last transaction did not get through."""
        return self.failed.is_set()

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        """Run ``function`` in one transaction, again and again while the store is away.

        Raises:
            StoreUnreachable: it is damaged: messages stay where they are until somebody mends it.
            Unstorable: it can never keep what ``function`` gives it.
        """
        return await self._outlast(lambda: self._store.transact(function))

    async def query(self, function: Callable[[Queries], T]) -> T:
        """Run ``function`` over the read-only queries, again and again while the store is away."""
        return await self._outlast(lambda: self._store.query(function))

    async def _outlast(self, ask: Callable[[], Awaitable[T]]) -> T:
        failures, why, follow = 0, "", True
        while True:
            try:
                result = await ask()
            except StoreUnreachable as error:
                self.failed.set()
                self.answered.clear()
                if error.final:
                    raise
                if failures % TELL_EVERY == 0 or error.why != why:
                    _log_away(error)
                why = error.why
                pause = BACKOFF[min(failures, len(BACKOFF) - 1)]
                if not follow:
                    await asyncio.sleep(pause)
                elif await _within(self.answered, pause):  # another transaction got through
                    follow = False  # only once: this one may fail for reasons of its own
                failures += 1
            else:
                if failures:
                    logger.warning("store is back", extra={"action": "store_back"})
                self.failed.clear()
                self.answered.set()
                return result

    async def commit(self, events: Events) -> Committed:
        """Fold events, or those that the same transaction finds, and write what follows."""
        if not callable(events) and any(isinstance(event, Commanded) for event in events):
            await self.flush_now()  # pausing a run holds what was not sent, and nothing else
        busy = callable(events) or len(events) > BUSY
        return await self._commit(events, self._due() if busy else self._take(len(self._sent)))

    async def _commit(self, events: Events, sent: list[SentMark]) -> Committed:
        epoch = self.epoch
        self._writing.append(sent)
        announced, self._announced = self._announced, {}
        self._announced_writing |= announced.items()

        clock = asyncio.get_running_loop().time
        began = clock()

        def work(transaction: Transaction) -> Committed:
            self._steps.observe(transaction.now(), began, at := clock())
            found = events(transaction) if callable(events) else events
            marks = Marks(sent, epoch, list(announced.items()))
            return commit(
                transaction, found, secret=self._secret, limits=self._limits, queue_timeouts=self.queue_timeouts,
                steady_for=self._steps.steady_for(at), marks=marks,
            )  # fmt: skip

        try:
            committed = await self.transact(work)
        except BaseException:
            self.mark_sent(sent, epoch)
            self._announced = announced | self._announced
            raise
        finally:
            self._writing.remove(sent)
            self._announced_writing -= announced.items()
        if committed.refills not in (None, epoch) and self.epoch == epoch:
            self.forget_sent(committed.refills)
        for key in committed.settled:
            self._sent.pop(key, None)
        self.take(committed.tasks)
        if committed.released:
            self.released.set()
        if committed.freed:
            self.freed.set()
        return committed

    async def commit_apart(self, events: Sequence[Event]) -> tuple[list[Committed], list[tuple[Event, Exception]]]:
        """What can be committed, and what cannot: all, or halves of it, until the culprits stand alone.

        Several results may share a message, and one that cannot be committed must not take the others along.
        """
        return await process_apart(events, self.commit)

    async def commit_possible(self, events: Sequence[Event]) -> list[Committed]:
        """What can be committed of events that no message brought; the others are logged, and are found again."""
        committed, failed = await self.commit_apart(events)
        for event, error in failed:
            self._skipped.add(f"{type(event).__name__} of run {event.run_id}", error)
        return committed

    def take(self, tasks: Iterable[Sendable]) -> None:
        """These are to be sent, and by nobody else."""
        self.in_hand |= {task.mark for task in tasks}

    def release(self, tasks: Iterable[Sendable]) -> None:
        """These are not in hand any more: whoever was to send them has failed, and the relay may find them."""
        self.in_hand -= {task.mark for task in tasks}

    def mark_sent(self, marks: Iterable[SentMark], epoch: int) -> None:
        """These were confirmed by the broker of ``epoch``: a transaction writes it, unless they are answered first."""
        if epoch == self.epoch:
            now = asyncio.get_running_loop().time()
            for run_id, task_id, attempt in marks:
                before, _ = self._sent.pop((run_id, task_id), (0, 0))  # it moves to the end
                self._sent[run_id, task_id] = (max(before, attempt), now)
            self._some_sent.set()

    def mark_announced(self, ends: Iterable[EndMark]) -> None:
        """The broker confirmed the messages about these ends: the next transaction writes it."""
        self._announced.update(ends)
        self._some_sent.set()

    def forget_sent(self, epoch: int) -> None:
        """What was confirmed is gone: the broker lost it, and what it says from now on is of another epoch."""
        self.epoch = epoch
        self._sent.clear()

    async def flush(self) -> None:
        """For ever: write marks that no batch took along when their time had come."""
        while True:
            await self._some_sent.wait()
            await asyncio.sleep(self._marks_after)
            if (due := self._due()) or self._announced:
                await self._commit((), due)
            if not self._sent and not self._announced:  # an end may have been confirmed while this was written
                self._some_sent.clear()

    async def flush_now(self) -> None:
        """Write all marks in a transaction of their own."""
        if (marks := self._take(len(self._sent))) or self._announced:
            await self._commit((), marks)

    def unwritten(self) -> set[SentMark]:
        """Tasks that are sent although their rows do not say so yet."""
        waiting = ((*key, attempt) for key, (attempt, _) in self._sent.items())
        return {*waiting, *(mark for marks in self._writing for mark in marks)}

    def unwritten_ends(self) -> set[EndMark]:
        """Ends of runs that are announced although their rows do not say so yet."""
        return {*self._announced.items(), *self._announced_writing}

    def _due(self) -> list[SentMark]:
        """Take the marks whose time has come."""
        before = asyncio.get_running_loop().time() - self._marks_after
        return self._take(sum(1 for _ in takewhile(lambda mark: mark[1] <= before, self._sent.values())))

    def _take(self, count: int) -> list[SentMark]:
        taken = [(*key, attempt) for key, (attempt, _) in islice(self._sent.items(), count)]
        for run_id, task_id, _ in taken:
            del self._sent[run_id, task_id]
        return taken


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event comes within a time."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _log_away(error: StoreUnreachable) -> None:
    extra = {"action": "store_away"}
    if error.misconfigured:
        logger.error("store is away until somebody sees to it, trying again: %s", error, extra=extra)
    else:
        logger.warning("store is away, waiting: %s", error, extra=extra)
