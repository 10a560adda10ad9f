"""What ``advance`` answers to an event: changes of rows, effects and messages, as plain values.

Changes of rows are written in bulk. What concerns many tasks is an *effect* that the store carries out as a set; its
outcome comes back as an event and is folded in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, get_args
from uuid import UUID

from flowkit.flow.events import Reported
from flowkit.flow.state import Run, RunStatus, Scope, ScopeStatus, Signal, Task, TaskStatus
from flowkit.wire import messages as wire

# Changes of rows


@dataclass(frozen=True, slots=True)
class AddRun:
    """A new run."""

    run: Run


@dataclass(frozen=True, slots=True)
class AddScope:
    """A new scope."""

    scope: Scope


class AddTask(NamedTuple):
    """A new task; a queued one is sent after the commit."""

    task: Task


class CountTasks(NamedTuple):
    """The run has created this many tasks now."""

    run_id: str
    tasks: int


class SettleTask(NamedTuple):
    """A task ended: succeeded, failed or cancelled."""

    run_id: str
    task_id: UUID
    status: TaskStatus
    attempt: int
    outputs: bytes | None = None
    nodes: bytes | None = None
    leaf_of: str | None = None
    message: str = ""
    error: bytes | None = None
    first_started_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class MarkLeaf:
    """A failed task is the value of a branch of ``leaf_of``, which returns exceptions.

    With ``error`` it is one that succeeded, and whose Gather has failed since.
    """

    run_id: str
    task_id: UUID
    leaf_of: str
    error: bytes | None = None


class MoveTask(NamedTuple):
    """An outstanding task goes on: to be held, sent again, or running. ``sent_at`` None means it is to be sent."""

    run_id: str
    task_id: UUID
    status: TaskStatus
    attempt: int
    tries: int
    held_for: str | None = None
    due: float | None = None
    error: bytes | None = None
    sent_at: float | None = None
    first_started_at: float | None = None
    started_at: float | None = None
    worker: str | None = None
    deaths: int = 0
    leased_until: float | None = None


class MoveScope(NamedTuple):
    """A scope's counter or status changed."""

    run_id: str
    path: str
    outstanding: int
    status: ScopeStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
    """A run ended; it is announced after the commit."""

    run_id: str
    status: RunStatus
    ended_at: float
    outputs: bytes | None = None
    outputs_from: UUID | None = None
    message: str = ""
    error: bytes | None = None
    grace_until: float | None = None  # cancelled: what was running may go on so long, and is told no earlier


@dataclass(frozen=True, slots=True)
class MoveRun:
    """A run is paused, goes on, or is opened again (``ended_at``, ``outputs``, ``message`` and ``error`` are unset)."""

    run_id: str
    status: RunStatus


@dataclass(frozen=True, slots=True)
class NoteCommand:
    """A command was decided: the same id changes nothing any more, and is answered as it was.

    ``refused`` is the reason of a refusal; None when the command was applied.
    """

    run_id: str
    id: UUID
    kind: str
    at: float
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class AddSignal:
    """A signal is kept until a ``Wait`` takes it or the run ends."""

    run_id: str
    name: str
    signal: Signal
    at: float


@dataclass(frozen=True, slots=True)
class TakeSignal:
    """The wait ``task_id`` took a signal, which was kept or came just now."""

    run_id: str
    name: str
    id: UUID
    task_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Supersede:
    """A result that changed nothing, recorded with the reason."""

    run_id: str
    task_id: UUID
    attempt: int | None
    status: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class HoldSlot:
    """An attempt of a failed task may be executed still: it counts in its slot until ``FreeSlot``."""

    run_id: str
    task_id: UUID
    attempt: int
    slot: str
    at: float


# Effects: carried out by the store as a set, after all changes of rows were written


@dataclass(frozen=True, slots=True)
class Collect:
    """Collect the values of a scope; answered by ``Collected``."""

    run_id: str
    scope: str


@dataclass(frozen=True, slots=True)
class CancelBelow:
    """Cancel every outstanding task and open scope whose path is ``path`` or below it; answered by ``Cancelled``.

    ``scope`` is the scope whose counter the cancelled ones directly in it stood in: None when nobody counts any more.
    The empty path is the whole run.

    The attempts that workers may have are answered as ``AttemptsCancelled``, and those of limited nodes count in their
    slots until ``FreeSlot``.
    """

    run_id: str
    path: str
    scope: str | None
    at: float
    grace: float = 0  # seconds that running mains may go on


@dataclass(frozen=True, slots=True)
class FailOutstanding:
    """The unfinished branches of a scope fail with ``error``; answered by ``Cancelled``, and as ``CancelBelow``.

    Every task outstanding directly in the scope fails with the error as value of its branch (``leaf_of``); so does the
    opener of every child scope that is open in it. What is outstanding below those child scopes is cancelled.
    """

    run_id: str
    scope: str
    error: bytes
    at: float


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """A cancelled attempt has ended: it does not count in its slot any more.

    An effect, for its task may be cancelled as a set in the same batch, and before.
    """

    run_id: str
    task_id: UUID
    attempt: int | None  # None: any


@dataclass(frozen=True, slots=True)
class LiftLeaves:
    """The values of the scope ``path`` become values of its parent: every ``leaf_of`` is rewritten."""

    run_id: str
    path: str
    parent: str


@dataclass(frozen=True, slots=True)
class Unhold:
    """Release all tasks of a run that are held for ``reason``: to be sent at once, or held in their slots."""

    run_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class HoldUnsent:
    """Hold all tasks of a run that are queued and were not sent yet, or held in their slots, for ``reason``.

    Queued tasks of limited nodes stay as they are: any of them may be on its way to a worker, so it counts in its slot
    until it is answered.
    """

    run_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reopen:
    """Let a failed run go on: failed tasks, and those cancelled by that failure, are sent again with the next attempt.

    Tasks whose failure is the value of a branch, and what was cancelled in such a branch, stay as they are. Waits
    wait again, without a timeout that has passed. Scopes that failed or were cancelled with the run open again, and
    their counters are counted anew.
    """

    run_id: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRun:
    """Copy the tasks and scopes of the ended run ``source`` to ``run_id``, which was added, up to one of its tasks.

    What follows from that task is left out: all below its path, and the continuation of each Gather that it stands in.
    The task and the scopes around it are copied as failed, so that ``Reopen`` lets them go on. Ids follow from
    ``run_id``, as if it had been started.
    """

    run_id: str
    source: str
    task_id: UUID | None  # None: its first task
    inputs: bytes | None  # of that task; None: as they were
    slot: str | None  # of that task with those inputs
    at: float
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrimRun:
    """Remove the oldest tasks of a run that goes on, down to ``keep`` of them and what is needed still (``trimming``).

    The run's ``tasks`` are fewer by as many, its ``trimmed`` more.
    """

    run_id: str
    keep: int


# Messages, beside the tasks and run ends that follow from the rows


@dataclass(frozen=True, slots=True)
class AnnounceRun:
    """Publish the ``run`` message of an ended run once more: its start came again."""

    run_id: str


@dataclass(frozen=True, slots=True)
class DeclareConflict:
    """Answer a start whose run id is taken by something else."""

    run_id: str
    start: wire.Start


@dataclass(frozen=True, slots=True)
class Orphan:
    """A result of a run that this store does not know: it becomes a dead letter."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Forbid:
    """A result of somebody who may not answer for the task's node: it becomes a dead letter."""

    event: Reported
    node: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Say something to all workers."""

    control: wire.Control


@dataclass(frozen=True, slots=True)
class RefuseCommand:
    """A command that makes no sense now; it becomes a dead letter with the reason.

    ``early``: there is no such run yet, and its start may be on its way by another queue.
    """

    run_id: str
    id: UUID
    reason: str
    early: bool = False


@dataclass(frozen=True, slots=True)
class DeclareRefused:
    """Answer a rerun that was refused: whoever waits for the run that it would have made hears the reason."""

    run_id: str  # of that run
    node: str
    id: UUID  # of the command
    reason: str


RowChange = (
    AddRun | AddScope | AddTask | CountTasks | SettleTask | MarkLeaf | MoveTask | MoveScope | EndRun | Supersede
    | MoveRun | NoteCommand | AddSignal | TakeSignal | HoldSlot
)  # fmt: skip
"""A change of one row."""

Effect = (
    Collect | CancelBelow | FailOutstanding | FreeSlot | LiftLeaves | Unhold | HoldUnsent | CopyRun | Reopen | TrimRun
)
"""A change of many rows at once, carried out as a set by the store."""

Notice = AnnounceRun | DeclareConflict | Orphan | Forbid | Tell | RefuseCommand | DeclareRefused
"""Something to be published, or answered, once the transaction is committed; it changes no row."""

Change = RowChange | Effect | Notice

ROW_CHANGES: frozenset[type] = frozenset(get_args(RowChange))
EFFECTS: frozenset[type] = frozenset(get_args(Effect))
NOTICES: frozenset[type] = frozenset(get_args(Notice))
