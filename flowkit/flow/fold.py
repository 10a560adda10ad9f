"""Fold events over a state: which rows they need, and what a change does to a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never, cast, get_args
from uuid import UUID

from flowkit.flow.advance import advance
from flowkit.flow.changes import (
    ROW_CHANGES,
    AddRun,
    AddScope,
    AddSignal,
    AddTask,
    Change,
    CountTasks,
    EndRun,
    HoldSlot,
    MarkLeaf,
    MoveRun,
    MoveScope,
    MoveTask,
    NoteCommand,
    Reopen,
    RowChange,
    SettleTask,
    Supersede,
    TakeSignal,
)
from flowkit.flow.context import Context
from flowkit.flow.events import (
    AttemptsCancelled,
    BranchEnded,
    BranchFailed,
    BranchReleased,
    Cancelled,
    Collected,
    Commanded,
    Drained,
    Event,
    LeaseExpired,
    QueueExpired,
    Reported,
    RunExpired,
    ScopeExpired,
    Signalled,
    Started,
    TaskFailed,
    WaitExpired,
)
from flowkit.flow.rerunning import new_run_id
from flowkit.flow.state import Keys, State
from flowkit.wire.items import WaitItem
from flowkit.wire.messages import CommandKind

EVENTS = frozenset(get_args(Event))


def keys(events: Iterable[Event]) -> Keys:
    """What these events need loaded."""
    runs: set[str] = set()
    roots: set[str] = set()
    tasks: set[tuple[str, UUID]] = set()
    scopes: set[tuple[str, str]] = set()
    payloads: set[tuple[str, UUID]] = set()
    waits: set[tuple[str, str]] = set()
    signals: set[tuple[str, str]] = set()
    commands: set[UUID] = set()
    for event in events:
        runs.add(event.run_id)
        match event:
            case Reported(result):
                tasks.add((event.run_id, result.task_id))
                signals.update((event.run_id, item.wait.name) for item in result.nodes if isinstance(item, WaitItem))
            case Started():
                roots.add(event.run_id)
            case LeaseExpired(run_id, task_id) | QueueExpired(run_id, task_id):
                tasks.add((run_id, task_id))
            case BranchReleased() | TaskFailed() | Signalled() | WaitExpired():
                tasks.add((event.run_id, event.task_id))
                payloads.add((event.run_id, event.task_id))
            case Collected() | Cancelled() | BranchEnded() | BranchFailed() | ScopeExpired() | Drained():
                scopes.add((event.run_id, event.scope))
            case Commanded(command):
                commands.add(command.id)
                if command.name is not None:
                    waits.add((event.run_id, command.name))
                if command.kind is CommandKind.RERUN:
                    runs.add(new_run_id(command))
                    if command.task_id is not None:
                        tasks.add((event.run_id, command.task_id))
            case RunExpired() | AttemptsCancelled():
                pass
    return Keys(
        runs=frozenset(runs),
        roots=frozenset(roots),
        tasks=frozenset(tasks),
        scopes=frozenset(scopes),
        payloads=frozenset(payloads),
        waits=frozenset(waits),
        signals=frozenset(signals),
        commands=frozenset(commands),
    )


def fold(state: State, events: Iterable[Event], context: Context) -> tuple[list[Change], list[Event]]:
    """Advance event by event, each over what the ones before it left.

    Returns:
        all changes in order, and the events to be folded once the changes are written.
    """
    changes: list[Change] = []
    later: list[Event] = []
    for event in events:
        for answer in advance(state, event, context):
            if type(answer) in EVENTS:  # a set, for isinstance would ask each of the fifteen in turn
                later.append(cast("Event", answer))
            else:
                change = cast("Change", answer)
                if type(change) in ROW_CHANGES:
                    apply(state, cast("RowChange", change))
                elif type(change) is Reopen:
                    state.reopening.add(change.run_id)
                changes.append(change)
    return changes, later


def apply(state: State, change: RowChange) -> None:  # noqa: C901, PLR0912 - one case a change, all of them here
    """Apply the change of a row to ``state``."""
    match change:  # what a chain does, first
        case SettleTask(run_id=run_id, task_id=task_id, status=status, attempt=attempt):
            key = (run_id, task_id)
            state.tasks[key] = state.tasks[key]._replace(status=status, attempt=attempt)
        case AddTask(task):
            state.tasks[task.run_id, task.id] = task
            if task.scope == "" and task.inputs is not None:
                state.inputs.setdefault(task.run_id, task.inputs)
            if task.signal is not None:
                state.waits.setdefault((task.run_id, task.signal), []).append(task.id)
        case CountTasks(run_id=run_id, tasks=tasks):
            state.runs[run_id] = state.runs[run_id]._replace(tasks=tasks)
        case MoveScope(run_id=run_id, path=path, outstanding=outstanding, status=status):
            state.scopes[run_id, path] = state.scopes[run_id, path]._replace(outstanding=outstanding, status=status)
        case AddRun(run):
            state.runs[run.id] = run
        case AddScope(scope):
            state.scopes[scope.run_id, scope.path] = scope
        case MoveTask(run_id=run_id, task_id=task_id):
            state.tasks[run_id, task_id] = state.tasks[run_id, task_id]._replace(
                status=change.status,
                attempt=change.attempt,
                tries=change.tries,
                held_for=change.held_for,
                due=change.due,
                sent_at=change.sent_at,
                first_started_at=change.first_started_at,
                started_at=change.started_at,
                worker=change.worker,
                deaths=change.deaths,
                leased_until=change.leased_until,
            )
        case EndRun(run_id=run_id, status=status, ended_at=ended_at):
            state.runs[run_id] = state.runs[run_id]._replace(status=status, ended_at=ended_at)
        case MoveRun(run_id, status):
            state.runs[run_id] = state.runs[run_id]._replace(status=status, ended_at=None)
        case NoteCommand(id=command_id, refused=refused):
            state.commands.add(command_id)
            if refused is not None:
                state.refusals[command_id] = refused
        case AddSignal(run_id, name, signal):
            state.signals.setdefault((run_id, name), []).append(signal)
        case TakeSignal(run_id, name, signal_id, task_id):
            kept = state.signals.get((run_id, name), [])
            state.signals[run_id, name] = [signal for signal in kept if signal.id != signal_id]
            waiting = state.waits.get((run_id, name), [])
            state.waits[run_id, name] = [waiter for waiter in waiting if waiter != task_id]
        case MarkLeaf() | HoldSlot() | Supersede():
            pass  # no rule reads these columns and tables
        case _:
            assert_never(change)
