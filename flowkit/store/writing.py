"""Writes a round of changes: each kind of change in one go, then the effects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from flowkit.flow.changes import (
    AddRun,
    AddScope,
    AddTask,
    CancelBelow,
    Cancelled,
    Change,
    Collect,
    Collected,
    CountTasks,
    EndRun,
    Event,
    MarkLeaf,
    MoveScope,
    MoveTask,
    SettleTask,
    Supersede,
)
from flowkit.flow.state import Leaf, Run, Scope, Task
from flowkit.store import rows
from flowkit.store.database import Database, Row

TaskKey = tuple[str, UUID]
ScopeKey = tuple[str, str]


@dataclass(slots=True)
class Changes:
    """Changes sorted by kind. They are written in the order of the fields, which is any order that was given.

    Only two kinds change the same columns of a task, so a move that comes after a settlement needs a batch of its own.
    """

    runs: list[Run] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    moves: dict[TaskKey, MoveTask] = field(default_factory=dict)
    settlements: dict[TaskKey, SettleTask] = field(default_factory=dict)
    leaves: dict[TaskKey, str] = field(default_factory=dict)
    counters: dict[ScopeKey, MoveScope] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, EndRun] = field(default_factory=dict)
    superseded: list[Supersede] = field(default_factory=list)

    def takes(self, change: Change) -> bool:
        """Whether the change may stand in one batch with those that are here."""
        match change:
            case MoveTask(run_id=run_id, task_id=task_id):
                return (run_id, task_id) not in self.settlements
            case SettleTask(run_id=run_id, task_id=task_id):
                return (run_id, task_id) not in self.leaves
        return True

    def add(self, change: Change) -> None:
        """Sort one change in; the last one of a row holds."""
        match change:
            case SettleTask():
                self.settlements[change.run_id, change.task_id] = change
            case AddTask(task):
                self.tasks.append(task)
                if not task.status.outstanding:
                    self.settlements[task.run_id, task.id] = rows.settlement(task)
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
            case EndRun():
                self.ends[change.run_id] = change
            case MarkLeaf(run_id, task_id, leaf_of):
                self.leaves[run_id, task_id] = leaf_of
            case Supersede():
                self.superseded.append(change)


def write(database: Database, changes: Sequence[Change]) -> list[Event]:
    """Write all rows, then carry out the effects; returns their outcomes in the order of the effects."""
    batch = Changes()
    effects: list[Collect | CancelBelow] = []
    for change in changes:
        if isinstance(change, (Collect, CancelBelow)):
            effects.append(change)
            continue
        if not batch.takes(change):
            _write_rows(database, batch)
            batch = Changes()
        batch.add(change)
    _write_rows(database, batch)
    return _carry_out(database, effects)


def _write_rows(database: Database, batch: Changes) -> None:
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
        marked = [(run_id, id_in(task_id), leaf_of) for (run_id, task_id), leaf_of in batch.leaves.items()]
        database.update("tasks", rows.TASK_KEY, ("leaf_of",), marked)
    if batch.counters:
        counters = [(c.run_id, c.path, c.outstanding, c.status.value) for c in batch.counters.values()]
        database.update("scopes", ("run_id", "path"), ("outstanding", "status"), counters)
    if batch.counts:
        database.update("runs", ("id",), ("tasks",), list(batch.counts.items()))
    if batch.ends:
        database.update("runs", ("id",), rows.ENDED, [rows.ended_row(end, id_in) for end in batch.ends.values()])
    if batch.superseded:
        columns = ("run_id", "task_id", "attempt", "status", "reason", "at")
        database.insert("superseded", columns, [_superseded_row(database, change) for change in batch.superseded])


def _superseded_row(database: Database, change: Supersede) -> Row:
    task_id, status, reason = database.id_in(change.task_id), rows.utf8(change.status), rows.utf8(change.reason)
    return (change.run_id, task_id, change.attempt, status, reason, change.at)


def _carry_out(database: Database, effects: Sequence[Collect | CancelBelow]) -> list[Event]:
    if not effects:
        return []
    collected = _collect(database, {(e.run_id, e.scope) for e in effects if isinstance(e, Collect)})
    events: list[Event] = []
    for effect in effects:
        if isinstance(effect, Collect):
            events.append(collected[effect.run_id, effect.scope])
        else:
            count = _cancel(database, effect)
            if effect.scope is not None:
                events.append(Cancelled(effect.run_id, effect.scope, count))
    return events


def _collect(database: Database, scopes: Iterable[ScopeKey]) -> dict[ScopeKey, Collected]:
    """All scopes in two statements: many runs end in one batch."""
    wanted = list(scopes)
    if not wanted:
        return {}
    leaves: dict[ScopeKey, list[Leaf]] = defaultdict(list)
    select = "SELECT t.run_id, t.leaf_of, t.path, t.id, t.outputs, t.error, t.message FROM tasks AS t"
    for run_id, scope, path, task_id, outputs, error, message in database.lookup(
        select, "tasks", ("run_id", "leaf_of"), wanted
    ):
        text = message.decode() if message else ""
        leaves[run_id, scope].append(Leaf(path, database.id_out(task_id), outputs, error, text))
    select = (
        "SELECT t.run_id, t.path, opener.outputs FROM scopes AS t "
        "JOIN tasks AS opener ON opener.run_id = t.run_id AND opener.id = t.opener"
    )
    opened = {(run_id, path): outputs for run_id, path, outputs in database.lookup(
        select, "scopes", ("run_id", "path"), wanted
    )}  # fmt: skip
    return {key: Collected(*key, opened.get(key) or b"{}", tuple(leaves[key])) for key in wanted}


def _cancel(database: Database, effect: CancelBelow) -> int:
    """Cancel in two statements, and say how many stood directly in ``effect.scope``."""
    values = {"run_id": effect.run_id, "at": effect.at}
    where = "run_id = :run_id"
    if effect.path:  # below p is what begins with "p.", that is from "p." up to "p/", the character after the dot
        where += " AND (path = :path OR (path >= :first AND path < :end))"
        values |= {"path": effect.path, "first": effect.path + ".", "end": effect.path + "/"}
    tasks = f"FROM tasks WHERE {where} AND {rows.OUTSTANDING}"
    scopes = f"FROM scopes WHERE {where} AND status = 'open'"
    count = 0
    if effect.scope is not None:
        counted = (
            f"SELECT (SELECT count(*) {tasks} AND scope = :scope) + (SELECT count(*) {scopes} AND parent = :scope)"
        )
        count = database.select(counted, values | {"scope": effect.scope})[0][0]
    database.execute(
        "UPDATE tasks SET status = 'cancelled', finished_at = :at, held_for = NULL, due = NULL, unsent_since = NULL "
        f"WHERE {where} AND {rows.OUTSTANDING}",
        values,
    )
    database.execute(
        f"UPDATE scopes SET status = 'cancelled', outstanding = 0 WHERE {where} AND status = 'open'", values
    )
    return count
