"""What the coordinator needs of a store: transactions over whole batches, in the store's own thread.

One hop per transaction: the caller passes a function, which runs in that thread with a ``Transaction`` in its hands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from uuid import UUID

if TYPE_CHECKING:  # a verb that only looks would wait for them
    from flowkit.flow.changes import Change
    from flowkit.flow.events import Drained, Event, LeaseExpired, TaskFailed
    from flowkit.flow.leases import Known, Lease
    from flowkit.flow.read_progress import ReadProgress
    from flowkit.flow.schedules import Schedule
    from flowkit.flow.slots import NodeLimit
    from flowkit.flow.state import Keys, State
    from flowkit.store.views import Queries
    from flowkit.wire import messages as wire

T = TypeVar("T")
TaskKey = tuple[str, UUID]  # run id, task id
AttemptKey = tuple[str, UUID, int]  # and the number of the attempt
SentMark = tuple[str, UUID, int]  # run id, task id, attempt
EndMark = tuple[str, float]  # run id, when it ended


class Sendable(NamedTuple):
    """A queued task with all that its message needs; ``inputs`` are resolved."""

    run_id: str
    task_id: UUID
    node: str
    attempt: int
    tries: int
    inputs: bytes
    first_started_at: float | None = None
    traceparent: str | None = None
    unsent_since: float | None = None  # Unix seconds; of what ``unsent`` found

    @property
    def mark(self) -> SentMark:
        """What tells it from the same task at another attempt."""
        return (self.run_id, self.task_id, self.attempt)


@dataclass(frozen=True, slots=True)
class EndedRun:
    """An ended run with all that its ``run`` message needs; ``outputs`` are resolved."""

    id: str
    node: str
    status: str
    outputs: bytes | None
    message: str
    error: bytes | None
    ended_at: float  # Unix seconds
    inputs: bytes | None = None  # of its first task
    parent: str | None = None

    @property
    def mark(self) -> EndMark:
        """What tells this end from a later one of the same run, which may go on when it has failed."""
        return (self.id, self.ended_at)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be processed."""

    reason: str
    detail: str
    queue: str  # where it was
    body: bytes
    properties: bytes  # JSON
    at: float
    run_id: str | None = None
    id: int | None = None  # once it is kept


@dataclass(frozen=True, slots=True)
class SentTask:
    """A task that was sent a while ago and has not been answered."""

    run_id: str
    task_id: UUID
    node: str
    attempt: int
    scope: str
    sent_at: float


@dataclass(frozen=True, slots=True)
class CancelledAttempt:
    """An attempt of a limited node that was cancelled, and has not ended as far as anybody knows."""

    run_id: str
    task_id: UUID
    attempt: int
    slot: str
    heard_at: float  # when it was cancelled, or a worker announced it last; Unix seconds
    tries: int | None = None  # of its task; None when that has another attempt by now, or was removed


@dataclass(frozen=True, slots=True)
class Released:
    """What became of held tasks that were due."""

    tasks: list[Sendable]  # queued
    slots: set[str]  # those of limited nodes are held in these slots now
    failures: list[TaskFailed]  # those that no slot can be told for
    count: int  # how many were due, of all kinds


@dataclass(frozen=True, slots=True)
class Admitted:
    """Tasks that were let out by their slots."""

    tasks: list[TaskKey]
    more: bool  # than one transaction should take: look at the same slots again


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one step of pruning removed; false when there was nothing to remove."""

    runs: int
    rows: int  # of other tables

    def __bool__(self) -> bool:
        return self.runs + self.rows > 0


@dataclass(frozen=True, slots=True)
class OldLine:
    """A place in the archived log lines, in the order of their times."""

    ts: float
    id: int


class Transaction(Protocol):
    """One transaction of the commit protocol. Every statement works on whole batches."""

    def now(self) -> float:
        """Unix seconds, by the clock that decides (the database's own, where it has one)."""

    def load(self, keys: Keys) -> State:
        """Lock the runs in the order of their ids and load what the keys name, payloads left out."""

    def write(self, changes: Sequence[Change], state: State | None = None) -> list[Event]:
        """Write all rows in bulk, then carry out the effects; returns their outcomes as events.

        Changes of one row come in order; the last one holds. Rows that are added may be changed in the same call.

        Args:
            changes: of rows, and effects.
            state: what was loaded, with the changes of rows applied to it: it may be kept for the next transaction.
        """

    def sendables(self, tasks: Iterable[TaskKey]) -> list[Sendable]:
        """Those of the tasks that are queued, with resolved inputs."""

    def mark_sent(self, tasks: Sequence[SentMark], at: float) -> None:
        """Note that these (run, task, attempt) were confirmed by the broker."""

    def unsent(
        self, *, before: float, limit: int, node: str | None = None, without: Collection[str] = ()
    ) -> list[Sendable]:
        """Queued tasks of running runs that are unsent since before ``before`` (created or released), ``skip locked``.

        So are those that are dated a minute ahead, or more: a clock was set back. They count as unsent since now from
        here on, so that another coordinator does not take them too.

        Args:
            before: Unix seconds.
            limit: how many at most; the oldest ones.
            node: only tasks of this node.
            without: no tasks of these nodes.
        """

    def restore_unsent(self, tasks: Sequence[Sendable]) -> None:
        """Give back what ``unsent`` found and nobody sent: unsent since the same time, in the same order, as before."""

    def release_due(self, now: float, limit: int, limits: Mapping[str, NodeLimit]) -> Released:
        """Held tasks of running runs whose time has come become queued (attempt as it is, sent_at None).

        Those of a node with limits are held in their slots instead.
        """

    def node_limits(self) -> dict[str, NodeLimit]:
        """The limits of the nodes that announced some."""

    def admit(self, slots: Iterable[str], limits: Mapping[str, NodeLimit]) -> Admitted:
        """Queue the oldest tasks of running runs that are held in these slots, as many as there is room for.

        To be the last that a transaction does: it waits for other transactions that have one of these slots.
        """

    def slots_due(self, now: float, limit: int) -> list[str]:
        """Slots whose rate allows something by now."""

    def slots_held(self, limit: int, *, after: str | None = None) -> list[str]:
        """Slots that hold tasks, those behind ``after`` in the order of their bytes."""

    def expired(self, now: float, limit: int) -> list[Event]:
        """Waits, scopes and runs of running runs whose time has passed, as events, ``skip locked``."""

    def ended(self, runs: Iterable[str]) -> list[EndedRun]:
        """Those of the runs that have ended."""

    def mark_unannounced(self, since: float) -> int:
        """Let runs that ended since then (Unix seconds) count as unannounced since now; returns how many."""

    def unannounced(self, *, before: float, limit: int) -> list[EndedRun]:
        """Ended runs whose end is unannounced since before ``before``, ``skip locked``.

        Those that are dated a minute ahead, or more, are among them: a clock was set back. They count as unannounced
        since now from here on, so that another coordinator does not announce them too.
        """

    def mark_announced(self, ends: Sequence[EndMark]) -> None:
        """Note that the broker confirmed the messages about these ends."""

    def forget_refusals(self, ids: Sequence[UUID]) -> None:
        """Let those of the commands that were refused be decided anew."""

    def sent_before(self, before: float, limit: int, *, after: SentTask | None = None) -> list[SentTask]:
        """Tasks queued or running that were sent before ``before``, those behind ``after`` in the order of their rows.

        Those dated a minute ahead, or more, are among them: a clock was set back. Leased tasks are not: their messages
        are gone, and a worker answers for them.
        """

    def overdue(self, before: Mapping[str, float], limit: int, *, after: SentTask | None = None) -> list[SentTask]:
        """Queued tasks of running runs that were sent before the time of their node, those behind ``after``.

        Those dated a minute ahead, or more, count as sent now from here on: a clock was set back.
        """

    def heard(self, since: float) -> list[wire.Worker]:
        """The newest announcements of workers that were heard of since then, and are not stopping."""

    def nodes_sent(self, before: float) -> list[str]:
        """Nodes with tasks queued or running that were sent before ``before``."""

    def unsend(self, tasks: Sequence[SentTask]) -> int:
        """These are to be sent again, those that nothing has happened to since they were found: sent_at None."""

    def unsend_all(self) -> int:
        """After a wipe of the broker: what is outstanding and released is to be sent at once, leased tasks excepted."""

    def known(self, tasks: Iterable[TaskKey]) -> dict[TaskKey, Known]:
        """What is known of those of the tasks that are there, runs unlocked."""

    def lease(self, leases: Sequence[Lease]) -> list[Lease]:
        """Grant or renew leases of tasks that are queued or running at that attempt; returns those that hold now.

        Rows that somebody else has locked are left as they are.
        """

    def expired_leases(self, now: float, limit: int) -> list[LeaseExpired]:
        """Leases of running or paused runs that ended before ``now``, ``skip locked``."""

    def shorten_leases(self, until: float) -> None:
        """Let leases end at ``until`` that last over a minute longer: they were granted before a clock was set back.

        Workers that live renew theirs; those of dead ones would last until the clock has caught up.
        """

    def note_heard(self, attempts: Iterable[AttemptKey], before: float) -> None:
        """Workers announce these attempts: note it for those that are cancelled and were heard of before ``before``."""

    def unheard_attempts(
        self, before: float, limit: int, *, after: CancelledAttempt | None = None
    ) -> list[CancelledAttempt]:
        """Cancelled attempts that count in their slots, and were not heard of since ``before``, the oldest first.

        Those dated a minute ahead, or more, are among them: a clock was set back.

        Args:
            before: Unix seconds.
            limit: how many at most.
            after: where the page before ended.
        """

    def give_up(self, attempts: Sequence[CancelledAttempt]) -> None:
        """These attempts count in their slots no more, unless they were heard of meanwhile."""

    def recount(self) -> int:
        """Compare every open scope's counter with its tasks, correct it, and return how many were wrong."""

    def drained(self, limit: int) -> list[Drained]:
        """Open scopes of running or paused runs that count nothing outstanding: ``recount`` has corrected them."""

    def record_workers(self, announcements: Sequence[wire.Worker], at: float) -> None:
        """The newest announcement of each worker, and of each node."""

    def record_progress(self, progress: ReadProgress) -> list[ReadProgress]:
        """Write the row of a coordinator, and return those of all coordinators."""

    def remove_progress(self, ids: Iterable[UUID]) -> None:
        """Remove the rows of coordinators that have stopped, or are gone; those that are missing are no error."""

    def add_dead(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters."""

    def find_dead(self, ids: Sequence[int]) -> list[DeadLetter]:
        """Those of the dead letters that are there, in the order of their ids."""

    def remove_dead(self, ids: Sequence[int]) -> None:
        """Remove dead letters. Those that are not there any more do no harm."""

    def prune(self, before: float, limit: int) -> Pruned:
        """Remove runs that ended before ``before`` with all that is kept of them, oldest first; a step of it.

        At most ``limit`` rows, and up to a hundred runs that are empty then. A run that is half removed is seen by
        nobody any more, and is gone for good when somebody names it again.
        """

    def prune_lines(self, before: float, limit: int, *, behind: OldLine | None = None) -> tuple[int, OldLine | None]:
        """Look at ``limit`` archived log lines from before ``before``, and remove those of no run that is there.

        Those of a loop whose oldest tasks were removed (``TrimRun``) go by their age too: it may go on for years.

        Returns:
            how many were removed, and where to go on; None: these were the last.
        """

    def prune_workers(self, before: float, limit: int) -> int:
        """Forget workers that were not heard of since ``before``; returns how many."""

    def due_schedules(self, now: float, limit: int) -> list[tuple[Schedule, bool]]:
        """Schedules to be looked at, ``skip locked``, and whether the last run of each is under way."""

    def move_schedules(self, schedules: Sequence[Schedule]) -> None:
        """Write what became of schedules: their next and last times, and what they skipped."""

    def schedule(self, name: str) -> Schedule | None:
        """One schedule, locked."""

    def put_schedule(self, schedule: Schedule) -> None:
        """Add a schedule, in the place of one that has its name."""

    def remove_schedule(self, name: str) -> bool:
        """Remove a schedule; False when there is none of that name."""

    def archive_claim(self, owner: str, now: float, lease: float) -> bool:
        """Be the one archiver, for ``lease`` seconds from now; False when another one is."""

    def archive_offset(self) -> int | None:
        """The offset of the last log message that was archived; None: begin at ``first``."""

    def archive(self, lines: Sequence[wire.Log], offset: int | None) -> None:
        """Add log lines and commit the offset with them. A line (worker, seq) that is there already is left out."""

    def meta(self, key: str, *, lock: bool = False) -> str | None:
        """A fact about the store itself: id, secret, broker, namespace. With ``lock`` nobody else changes it now."""

    def set_meta(self, key: str, value: str) -> None:
        """Write such a fact."""


class Store(Protocol):
    """A database with the tables of FlowKit."""

    @property
    def url(self) -> str:
        """The address with the password masked."""

    def transact(self, function: Callable[[Transaction], T]) -> Awaitable[T]:
        """Run ``function`` in one transaction in the store's thread; serialisation failures are tried again.

        ``function`` may run more than once. When it raises, everything is rolled back and the error comes out here.
        """

    def query(self, function: Callable[[Queries], T]) -> Awaitable[T]:
        """Run ``function`` over the read-only queries, in the store's thread."""

    async def close(self) -> None:
        """Finish what runs, close the connections, end the thread."""
