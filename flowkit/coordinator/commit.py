"""One transaction of the coordinator: load, advance, write, until nothing follows any more."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, assert_never, cast
from uuid import UUID

from flowkit.flow import limiting
from flowkit.flow.changes import (
    NOTICES,
    AddTask,
    AnnounceRun,
    CancelBelow,
    Change,
    DeclareConflict,
    DeclareRefused,
    EndRun,
    FailOutstanding,
    Forbid,
    HoldUnsent,
    MoveTask,
    Notice,
    Orphan,
    RefuseCommand,
    Reopen,
    SettleTask,
    Tell,
    Unhold,
)
from flowkit.flow.context import Context
from flowkit.flow.events import Event
from flowkit.flow.fold import fold, keys
from flowkit.flow.limits import Limits
from flowkit.flow.state import Run, RunStatus, TaskStatus
from flowkit.store.protocol import EndedRun, EndMark, Sendable, SentMark, TaskKey, Transaction
from flowkit.wire import messages as wire

REFILLS = "refills"  # a fact of the store: how often everything outstanding was sent again, for the broker had lost it

# Kinds of changes
TO_TELL = NOTICES | {EndRun}  # what something is published of, beside tasks
RELEASING = frozenset({Unhold, Reopen})
FREEING = RELEASING | {CancelBelow, FailOutstanding}
UNDOING = frozenset({CancelBelow, FailOutstanding, HoldUnsent})


class Marks(NamedTuple):
    """Tasks that the broker confirmed, as it was after so many refills: what an earlier one confirmed is gone.

    ``announced`` are ends of runs that some broker has confirmed.
    """

    sent: Sequence[SentMark]
    refills: int
    announced: Sequence[EndMark] = ()


NONE = Marks((), 0)
NO_TIMEOUTS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Committed:
    """What is to be published now that it is durable."""

    tasks: list[Sendable] = field(default_factory=list)
    ended: list[EndedRun] = field(default_factory=list)
    conflicts: list[wire.Start] = field(default_factory=list)
    unmade: list[DeclareRefused] = field(default_factory=list)  # reruns that were refused
    orphans: set[str] = field(default_factory=set)  # runs that results named and nobody knows
    forbidden: list[Forbid] = field(default_factory=list)  # results of logins that may not answer for their nodes
    controls: list[wire.Control] = field(default_factory=list)
    refused: dict[UUID, str] = field(default_factory=dict)  # commands that make no sense now, with the reason
    early: set[UUID] = field(default_factory=set)  # those of them whose run may be on its way
    settled: Collection[TaskKey] = ()  # nobody asks any more whether these were sent
    refills: int | None = None  # what the store says of them, where marks were to be written
    released: bool = False  # tasks were released as a set: the relay finds them
    freed: bool = False  # so were slots of limited nodes, or more than one transaction should fill


def commit(
    transaction: Transaction,
    events: Sequence[Event],
    *,
    secret: bytes,
    limits: Limits,
    queue_timeouts: Mapping[str, float] = NO_TIMEOUTS,
    steady_for: float = math.inf,
    marks: Marks = NONE,
) -> Committed:
    """Fold ``events`` and write what follows, all in the given transaction.

    Args:
        transaction: of the store, in the store's thread.
        events: of one batch, in the order in which they came.
        secret: of the store.
        limits: guards of runs.
        queue_timeouts: seconds that tasks may wait to be taken, by node.
        steady_for: seconds for which the store's clock is known not to have been set.
        marks: tasks that were confirmed, to be written down.
    """
    context = Context(transaction.now(), secret, limits, transaction.node_limits(), queue_timeouts, steady_for)
    changes: list[Change] = []
    runs: dict[str, Run] = {}
    touched: set[str] = set()
    pending: list[Event] = list(events)
    while pending:
        state = transaction.load(keys(pending))
        round_changes, later = fold(state, pending, context)
        pending = later + transaction.write(round_changes, state)
        changes += round_changes
        runs |= state.runs
        touched |= limiting.touched(state, round_changes)
    committed = _committed(transaction, changes, runs)
    # Behind the runs' locks: rows of other runs are taken last, and by everybody; and locks of slots behind all others.
    if unanswered := [mark for mark in marks.sent if mark[:2] not in committed.settled]:
        # Behind all that this may have waited for, such as a refill by another coordinator.
        committed = replace(committed, refills=refills(transaction))
        if committed.refills == marks.refills:
            transaction.mark_sent(unanswered, context.now)
    transaction.mark_announced(marks.announced)
    if touched:
        admitted = transaction.admit(touched, context.node_limits)
        committed.tasks.extend(transaction.sendables(admitted.tasks))
        committed = replace(committed, freed=committed.freed or admitted.more)
    return committed


def refills(transaction: Transaction) -> int:
    """The number of refills; locked, where the store has it: no other coordinator refills until this is committed."""
    return int(transaction.meta(REFILLS, lock=True) or 0)


def _committed(transaction: Transaction, changes: Sequence[Change], runs: Mapping[str, Run]) -> Committed:
    ended: list[str] = []
    kinds = set(map(type, changes))
    committed = Committed(tasks=_tasks(transaction, changes, kinds, runs))
    for change in changes:
        if type(change) not in TO_TELL:
            continue
        match notice := cast("Notice | EndRun", change):
            case EndRun(run_id=run_id) | AnnounceRun(run_id):
                ended.append(run_id)
            case DeclareConflict(start=start):
                committed.conflicts.append(start)
            case DeclareRefused():
                committed.unmade.append(notice)
            case Orphan(run_id):
                committed.orphans.add(run_id)
            case Forbid():
                committed.forbidden.append(notice)
            case Tell(control):
                committed.controls.append(control)
            case RefuseCommand(id=command_id, reason=reason, early=early):
                committed.refused[command_id] = reason
                if early:
                    committed.early.add(command_id)
            case _:
                assert_never(notice)
    return replace(
        committed,
        ended=transaction.ended(ended) if ended else [],
        settled={(change.run_id, change.task_id) for change in changes if type(change) is SettleTask},
        released=not RELEASING.isdisjoint(kinds),
        freed=not FREEING.isdisjoint(kinds),
    )


def _tasks(
    transaction: Transaction, changes: Sequence[Change], kinds: set[type[Change]], runs: Mapping[str, Run]
) -> list[Sendable]:
    """Tasks to send; the inputs of most are in hand."""
    ready: list[Sendable] = []
    settled: SettleTask | None = None  # the last one: tasks stand right behind the one that their inputs come from
    unresolved: list[TaskKey] = []
    for change in changes:
        match change:
            case SettleTask():
                settled = change
            case AddTask(task) if task.status is TaskStatus.QUEUED:
                inputs = task.inputs
                if settled is not None and (settled.run_id, settled.task_id) == (task.run_id, task.inputs_from):
                    inputs = settled.outputs
                if inputs is None:
                    unresolved.append((task.run_id, task.id))
                else:
                    trace = runs[task.run_id].traceparent
                    ready.append(
                        Sendable(task.run_id, task.id, task.node, task.attempt, task.tries, inputs, traceparent=trace)
                    )
            case MoveTask(status=TaskStatus.QUEUED, sent_at=None):
                unresolved.append((change.run_id, change.task_id))
    if not UNDOING.isdisjoint(kinds):
        # Something that was added a moment ago may be among what was cancelled or held: only the rows know.
        # Nothing of a run that was paused here may leave, though a task of a limited node stays queued.
        asked = [*unresolved, *((task.run_id, task.task_id) for task in ready)]
        unresolved, ready = [key for key in asked if runs[key[0]].status is RunStatus.RUNNING], []
    return [*ready, *(transaction.sendables(unresolved) if unresolved else ())]
