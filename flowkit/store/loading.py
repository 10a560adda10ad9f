"""Loads what a round of events needs: a few statements, whatever the number of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import UUID

from flowkit.flow import paths
from flowkit.flow.state import Keys, Signal, State, Task
from flowkit.store import pruning, rows
from flowkit.store.database import Database, Row
from flowkit.store.kept import Kept
from flowkit.store.protocol import TaskKey

Name = tuple[str, str]  # run id, name of a signal
K = TypeVar("K")
V = TypeVar("V")


def load(database: Database, keys: Keys, kept: Kept) -> State:
    """Lock the runs in the order of their ids and load what the keys name, unless it is kept."""
    state = State()
    if unknown := _take(keys.runs, kept.run, state.runs):
        _lock_runs(database, unknown, state)
    if keys.roots:
        state.inputs.update(database.lookup(rows.ROOT_INPUTS, "runs", ("id",), [(run_id,) for run_id in keys.roots]))
    if missing := _take(keys.tasks, kept.task, state.tasks):
        wanted: list[Row] = [(run_id, database.id_in(task_id)) for run_id, task_id in missing]
        for row in database.lookup(rows.TASK_STATE, "tasks", rows.TASK_KEY, wanted):
            task = rows.read_task(row, database.id_out)
            state.tasks[task.run_id, task.id] = task
    if keys.waits:
        _load_waits(database, keys.waits, state)
    scopes = keys.scopes | {(task.run_id, task.scope) for task in state.tasks.values()}
    if elsewhere := _take(scopes, kept.scope, state.scopes):
        for row in database.lookup(rows.SCOPE_STATE, "scopes", ("run_id", "path"), elsewhere):
            scope = rows.read_scope(row, database.id_out)
            state.scopes[scope.run_id, scope.path] = scope
    if keys.payloads:
        _load_payloads(database, keys.payloads, state)
    if keys.signals:
        _load_signals(database, keys.signals, state)
    if keys.commands:
        _load_commands(database, keys.commands, state)
    return state


def _take(wanted: Iterable[K], kept: Callable[[K], V | None], known: dict[K, V]) -> list[K]:
    """Take the rows that are kept; returns the keys of the others."""
    missing = []
    for key in wanted:
        if (row := kept(key)) is None:
            missing.append(key)
        else:
            known[key] = row
    return missing


def _lock_runs(database: Database, runs: Iterable[str], state: State) -> None:
    locked: list[Row] = [(run_id,) for run_id in sorted(runs)]
    leaving = []
    for row in database.lookup(rows.RUN_STATE, "runs", ("id",), locked, lock=True):
        *columns, pruned_at = row
        if pruned_at is None:
            state.runs[row[0]] = rows.read_run(tuple(columns), database.id_out)
        else:
            leaving.append(row[0])
    if leaving:
        pruning.finish(database, leaving)  # half of a run is none: nobody goes on with it, or finds it there


def _load_waits(database: Database, names: Iterable[Name], state: State) -> None:
    """The tasks that wait, oldest first."""
    waiting: list[Task] = []
    wanted = [(run_id, rows.utf8(name)) for run_id, name in names]
    for row in database.lookup(rows.TASK_STATE, "tasks", ("run_id", "signal"), wanted, only="t.status = 'waiting'"):
        task = rows.read_task(row, database.id_out)
        state.tasks[task.run_id, task.id] = task
        waiting.append(task)
    for task in sorted(waiting, key=lambda task: (task.created_at, paths.order(task.path))):
        assert task.signal is not None
        state.waits.setdefault((task.run_id, task.signal), []).append(task.id)


def _load_payloads(database: Database, tasks: Iterable[TaskKey], state: State) -> None:
    """The resolved inputs of tasks, and who handles the failures of their nodes."""
    wanted = [(run_id, database.id_in(task_id)) for run_id, task_id in tasks]
    nodes = set()
    for run_id, task_id, node, inputs in database.lookup(rows.PAYLOAD, "tasks", rows.TASK_KEY, wanted):
        state.payloads[run_id, database.id_out(task_id)] = inputs or b"{}"
        nodes.add((node,))
    if nodes:
        select = "SELECT t.name, t.on_error FROM nodes AS t"
        state.on_error.update(database.lookup(select, "nodes", ("name",), list(nodes), only="t.on_error IS NOT NULL"))


def _load_signals(database: Database, names: Iterable[Name], state: State) -> None:
    """Signals that nobody has taken, in the order in which they came."""
    asked = {(run_id, rows.utf8(name)): name for run_id, name in names}
    found = database.lookup(rows.SIGNAL, "signals", ("run_id", "name"), list(asked))
    for run_id, kept_name, _, signal_id, value in sorted(found, key=lambda row: row[2]):
        key = (run_id, asked[run_id, kept_name])
        state.signals.setdefault(key, []).append(Signal(database.id_out(signal_id), value))


def _load_commands(database: Database, commands: Iterable[UUID], state: State) -> None:
    """Those of the commands that were decided before, with the reasons of those that were refused."""
    wanted: list[Row] = [(database.id_in(command),) for command in commands]
    for command_id, refused in database.lookup(
        "SELECT t.id, t.refused FROM commands AS t", "commands", ("id",), wanted
    ):
        command = database.id_out(command_id)
        state.commands.add(command)
        if refused is not None:
            state.refusals[command] = refused.decode()
