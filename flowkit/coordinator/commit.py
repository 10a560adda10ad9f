"""One transaction of the coordinator: load, advance, write, until nothing follows any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from flowkit.flow.context import Context
from flowkit.flow.changes import (
    AddTask,
    AnnounceRun,
    CancelBelow,
    Change,
    DeclareConflict,
    EndRun,
    Event,
    MoveTask,
    Orphan,
    SettleTask,
)
from flowkit.flow.fold import fold, keys
from flowkit.flow.limits import Limits
from flowkit.flow.state import Run, TaskStatus
from flowkit.store.protocol import EndedRun, Sendable, TaskKey, Transaction
from flowkit.wire import messages as wire

SentMark = tuple[str, UUID, int]  # run, task, attempt: confirmed by the broker


@dataclass(frozen=True, slots=True)
class Committed:
    """What is to be published now that it is durable."""

    tasks: list[Sendable] = field(default_factory=list)
    ended: list[EndedRun] = field(default_factory=list)
    conflicts: list[wire.Start] = field(default_factory=list)
    orphans: frozenset[str] = frozenset()  # runs that results named and nobody knows


def commit(
    transaction: Transaction, events: Sequence[Event], *, secret: bytes, limits: Limits, sent: Sequence[SentMark] = ()
) -> Committed:
    """Fold ``events`` and write what follows, all in the given transaction.

    Args:
        transaction: of the store, in the store's thread.
        events: of one batch, in the order in which they came.
        secret: of the store.
        limits: guards of runs.
        sent: tasks that were confirmed since the last transaction.
    """
    context = Context(now=transaction.now(), secret=secret, limits=limits)
    if sent:
        transaction.mark_sent(sent, context.now)
    changes: list[Change] = []
    runs: dict[str, Run] = {}
    pending: list[Event] = list(events)
    while pending:
        state = transaction.load(keys(pending))
        round_changes, later = fold(state, pending, context)
        pending = later + transaction.write(round_changes)
        changes += round_changes
        runs |= state.runs
    return _committed(transaction, changes, runs)


def _committed(transaction: Transaction, changes: Sequence[Change], runs: Mapping[str, Run]) -> Committed:
    ready: dict[TaskKey, Sendable] = {}
    outputs: dict[TaskKey, bytes] = {}
    unresolved: list[TaskKey] = []
    ended: list[str] = []
    conflicts: list[wire.Start] = []
    orphans: set[str] = set()
    cancelled = False
    for change in changes:
        match change:
            case SettleTask(outputs=bytes(raw)):
                outputs[change.run_id, change.task_id] = raw
            case AddTask(task) if task.status is TaskStatus.QUEUED:
                key = (task.run_id, task.id)
                inputs = task.inputs or outputs.get((task.run_id, task.inputs_from or task.id))
                if inputs is None:
                    unresolved.append(key)
                else:
                    ready[key] = Sendable(
                        *key, task.node, task.attempt, task.tries, inputs, traceparent=runs[task.run_id].traceparent
                    )
            case MoveTask(status=TaskStatus.QUEUED, sent_at=None):
                unresolved.append((change.run_id, change.task_id))
            case EndRun(run_id=run_id) | AnnounceRun(run_id):
                ended.append(run_id)
            case DeclareConflict(start=start):
                conflicts.append(start)
            case Orphan(run_id):
                orphans.add(run_id)
            case CancelBelow():
                cancelled = True
    if cancelled:
        # Something that was added a moment ago may be among the cancelled: only the rows know.
        unresolved, ready = [*unresolved, *ready], {}
    tasks = [*ready.values(), *(transaction.sendables(unresolved) if unresolved else ())]
    return Committed(tasks, transaction.ended(ended) if ended else [], conflicts, frozenset(orphans))
