"""Writes a round of changes: each kind of change in one go, then the effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never, cast
from uuid import UUID

from flowkit.flow.changes import (
    EFFECTS,
    ROW_CHANGES,
    AddRun,
    AddScope,
    AddSignal,
    AddTask,
    Change,
    CountTasks,
    Effect,
    EndRun,
    HoldSlot,
    MarkLeaf,
    MoveRun,
    MoveScope,
    MoveTask,
    NoteCommand,
    RowChange,
    SettleTask,
    Supersede,
    TakeSignal,
)
from flowkit.flow.events import Event
from flowkit.flow.state import Run, RunStatus, Scope, Task
from flowkit.store import rows
from flowkit.store.database import Database, Row
from flowkit.store.effects import carry_out

TaskKey = tuple[str, UUID]
ScopeKey = tuple[str, str]
REOPENED = (None, None, None, b"", None, None, None)  # a run that goes on has not ended


@dataclass(slots=True)
class Changes:
    """Changes sorted by kind. They are written in the order of the fields, which is any order that was given.

    A move of a task after its settlement, or of a run after its end, changes the same columns again: that needs a batch
    of its own.
    """

    runs: list[Run] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    moves: dict[TaskKey, MoveTask] = field(default_factory=dict)
    settlements: dict[TaskKey, SettleTask] = field(default_factory=dict)
    leaves: dict[TaskKey, MarkLeaf] = field(default_factory=dict)
    counters: dict[ScopeKey, MoveScope] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    commands: list[NoteCommand] = field(default_factory=list)
    kept: list[AddSignal] = field(default_factory=list)
    taken: list[TakeSignal] = field(default_factory=list)
    statuses: dict[str, RunStatus] = field(default_factory=dict)
    ends: dict[str, EndRun] = field(default_factory=dict)
    slots: list[HoldSlot] = field(default_factory=list)
    superseded: list[Supersede] = field(default_factory=list)

    def takes(self, change: RowChange) -> bool:
        """Whether the change may stand in one batch with those that are here."""
        match change:
            case SettleTask(run_id=run_id, task_id=task_id):
                return not self.leaves or (run_id, task_id) not in self.leaves
            case MoveTask(run_id=run_id, task_id=task_id):
                return not self.settlements or (run_id, task_id) not in self.settlements
            case MoveRun(run_id):
                return run_id not in self.ends
        return True

    def add(self, change: RowChange) -> None:  # noqa: C901, PLR0912 - one case a change
        """Sort one change in; the last one of a row holds."""
        match change:
            case SettleTask():
                self.settlements[change.run_id, change.task_id] = change
            case AddTask(task):
                self.tasks.append(task)
                if not task.status.outstanding:
                    self.settlements[task.run_id, task.id] = _settlement(task)
            case CountTasks():
                self.counts[change.run_id] = change.tasks
            case MoveScope():
                self.counters[change.run_id, change.path] = change
            case MoveTask():
                self.moves[change.run_id, change.task_id] = change
            case AddRun(run):
                self.runs.append(run)
            case AddScope(scope):
                self.scopes.append(scope)
            case MoveRun(run_id, status):
                self.statuses[run_id] = status
            case NoteCommand():
                self.commands.append(change)
            case AddSignal():
                self.kept.append(change)
            case TakeSignal():
                self.taken.append(change)
            case EndRun():
                self.ends[change.run_id] = change
            case MarkLeaf(run_id, task_id):
                self.leaves[run_id, task_id] = change
            case HoldSlot():
                self.slots.append(change)
            case Supersede():
                self.superseded.append(change)
            case _:
                assert_never(change)


def write(database: Database, changes: Sequence[Change]) -> list[Event]:
    """Write all rows, then carry out the effects; returns their outcomes in the order of the effects."""
    batch = Changes()
    effects: list[Effect] = []
    for change in changes:
        if type(change) in ROW_CHANGES:
            row_change = cast("RowChange", change)
            if not batch.takes(row_change):
                _write_rows(database, batch)
                batch = Changes()
            batch.add(row_change)
        elif type(change) in EFFECTS:
            effects.append(cast("Effect", change))
    _write_rows(database, batch)
    return carry_out(database, effects)


def _write_rows(database: Database, batch: Changes) -> None:  # noqa: C901, PLR0912 - one statement a kind
    id_in = database.id_in
    if batch.runs:
        roots = {task.run_id: task.id for task in batch.tasks if task.path == "0"}
        database.insert("runs", rows.RUN, [rows.run_row(run, roots.get(run.id), id_in) for run in batch.runs])
    if batch.scopes:
        database.insert("scopes", rows.SCOPE, [rows.scope_row(scope, id_in) for scope in batch.scopes])
    if batch.tasks:
        database.insert("tasks", rows.NEW_TASK, [rows.new_task_row(task, id_in) for task in batch.tasks])
    if batch.moves:
        now = database.now()
        moved = [rows.moved_row(move, now, id_in) for move in batch.moves.values()]
        database.update("tasks", rows.TASK_KEY, rows.MOVED, moved)
    if batch.settlements:
        settled = [rows.settled_row(change, id_in) for change in batch.settlements.values()]
        database.update("tasks", rows.TASK_KEY, rows.SETTLED, settled)
    if batch.leaves:
        marked = [(leaf.run_id, id_in(leaf.task_id), leaf.leaf_of) for leaf in batch.leaves.values()]
        database.update("tasks", rows.TASK_KEY, ("leaf_of",), marked)
        wrong = [
            (leaf.run_id, id_in(leaf.task_id), "failed", leaf.error) for leaf in batch.leaves.values() if leaf.error
        ]
        if wrong:
            database.update("tasks", rows.TASK_KEY, ("status", "error"), wrong)
    if batch.counters:
        counters = [(c.run_id, c.path, c.outstanding, str(c.status)) for c in batch.counters.values()]
        database.update("scopes", ("run_id", "path"), ("outstanding", "status"), counters)
    if batch.counts:
        database.update("runs", ("id",), ("tasks",), list(batch.counts.items()))
    if batch.commands:
        database.insert("commands", rows.COMMAND, [rows.command_row(note, id_in) for note in batch.commands])
    if batch.kept:
        kept = [(k.run_id, rows.utf8(k.name), id_in(k.signal.id), k.signal.input, k.at) for k in batch.kept]
        database.insert("signals", ("run_id", "name", "id", "input", "at"), kept)
    if batch.taken:
        taken = [(take.run_id, rows.utf8(take.name), id_in(take.id)) for take in batch.taken]
        database.delete("signals", ("run_id", "name", "id"), taken)
    if batch.statuses:
        moved_runs = [(run_id, str(status), *REOPENED) for run_id, status in batch.statuses.items()]
        database.update("runs", ("id",), rows.ENDED, moved_runs)
    if batch.ends:
        database.update("runs", ("id",), rows.ENDED, [rows.ended_row(end, id_in) for end in batch.ends.values()])
        # A failed run may go on (retry), and its waits then find what was sent to them before.
        if over := [(end.run_id,) for end in batch.ends.values() if end.status is not RunStatus.FAILED]:
            database.delete("signals", ("run_id",), over)
    if batch.slots:
        slots = [(s.run_id, id_in(s.task_id), s.attempt, rows.utf8(s.slot), s.at) for s in batch.slots]
        database.insert("cancelled_attempts", (*rows.TASK_KEY, "attempt", "slot", "heard_at"), slots, new_only=True)
    if batch.superseded:
        columns = ("run_id", "task_id", "attempt", "status", "reason", "at")
        database.insert("superseded", columns, [_superseded_row(database, change) for change in batch.superseded])


def _settlement(task: Task) -> SettleTask:
    """What a new task has beyond a fresh one when it comes settled, as the first of a finished start does."""
    return SettleTask(
        run_id=task.run_id, task_id=task.id, status=task.status, attempt=task.attempt, outputs=task.outputs,
        nodes=task.nodes, leaf_of=task.leaf_of, message=task.message, error=task.error,
        first_started_at=task.first_started_at, started_at=task.started_at, finished_at=task.finished_at,
        worker=task.worker,
    )  # fmt: skip


def _superseded_row(database: Database, change: Supersede) -> Row:
    task_id, status, reason = database.id_in(change.task_id), rows.utf8(change.status), rows.utf8(change.reason)
    return (change.run_id, task_id, change.attempt, status, reason, change.at)
