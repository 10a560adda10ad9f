"""Fold events over a state: which rows they need, and what a change does to a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flowkit.flow.advance import Context, advance
from flowkit.flow.changes import (
    AddRun,
    AddScope,
    AddTask,
    BranchFailed,
    Cancelled,
    Change,
    Collected,
    CountTasks,
    EndRun,
    Event,
    MoveScope,
    MoveTask,
    Reported,
    SettleTask,
    Started,
)
from flowkit.flow.state import Keys, State


def keys(events: Iterable[Event]) -> Keys:
    """What these events need loaded."""
    runs, roots, tasks, scopes = set(), set(), set(), set()
    for event in events:
        runs.add(event.run_id)
        match event:
            case Started():
                roots.add(event.run_id)
            case Reported():
                tasks.add((event.run_id, event.result.task_id))
            case Collected() | Cancelled() | BranchFailed():
                scopes.add((event.run_id, event.scope))
    return Keys(frozenset(runs), frozenset(roots), frozenset(tasks), frozenset(scopes))


def fold(state: State, events: Iterable[Event], context: Context) -> tuple[list[Change], list[Event]]:
    """Advance event by event, each over what the ones before it left.

    Returns:
        all changes in order, and the events to be folded once the changes are written.
    """
    changes: list[Change] = []
    later: list[Event] = []
    for event in events:
        for answer in advance(state, event, context):
            if isinstance(answer, Event):
                later.append(answer)
            else:
                apply(state, answer)
                changes.append(answer)
    return changes, later


def apply(state: State, change: Change) -> None:
    """Let a change of rows hold in ``state``; effects and messages leave it as it is."""
    match change:
        case AddRun(run):
            state.runs[run.id] = run
        case AddScope(scope):
            state.scopes[scope.run_id, scope.path] = scope
        case AddTask(task):
            state.tasks[task.run_id, task.id] = task
            if task.scope == "" and task.inputs is not None:
                state.inputs.setdefault(task.run_id, task.inputs)
        case CountTasks(run_id=run_id, tasks=tasks):
            state.runs[run_id] = replace(state.runs[run_id], tasks=tasks)
        case SettleTask(run_id=run_id, task_id=task_id, status=status, attempt=attempt):
            state.tasks[run_id, task_id] = replace(state.tasks[run_id, task_id], status=status, attempt=attempt)
        case MoveTask(run_id=run_id, task_id=task_id):
            state.tasks[run_id, task_id] = replace(
                state.tasks[run_id, task_id],
                status=change.status,
                attempt=change.attempt,
                tries=change.tries,
                held_for=change.held_for,
                due=change.due,
                sent_at=change.sent_at,
                first_started_at=change.first_started_at,
                started_at=change.started_at,
                worker=change.worker,
            )
        case MoveScope(run_id=run_id, path=path, outstanding=outstanding, status=status):
            state.scopes[run_id, path] = replace(state.scopes[run_id, path], outstanding=outstanding, status=status)
        case EndRun(run_id=run_id, status=status, ended_at=ended_at):
            state.runs[run_id] = replace(state.runs[run_id], status=status, ended_at=ended_at)
        case _:
            pass
