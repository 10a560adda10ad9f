"""Copies a run for a rerun: what is settled goes along, what follows from one of its tasks does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flowkit.flow import making, paths
from flowkit.flow.changes import CopyRun
from flowkit.flow.state import DELAY
from flowkit.store import rows
from flowkit.store.database import Database

# Taken over as they are, payloads and all, within the database. What is not named here begins empty in the copy: there
# nothing is due, on its way to a worker, or in the hands of one.
OF_TASK = (
    "path", "scope", "node", "status", "attempt", "tries", "held_for", "inputs", "outputs", "nodes", "leaf_of", "wait",
    "signal", "handler", "deaths", "message", "error", "worker", "created_at", "sent_at", "first_started_at",
    "started_at", "finished_at", "slot", "depth", "unfolded",
)  # fmt: skip
OF_SCOPE = (
    "path", "parent", "status", "outstanding", "branches", "continuation", "return_exceptions", "max_concurrency",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Task:
    id: Any  # as the driver has it
    path: str
    scope: str
    inputs_from: Any
    created_at: float
    unfolded: str | None

    @property
    def above(self) -> str:
        """Path of the task that it follows, or of the Gather that it is a branch of, or goes on after."""
        return (self.unfolded or self.path).rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class _Scope:
    path: str
    parent: str | None
    opener: Any
    due: float | None
    return_exceptions: bool


def copy(database: Database, effect: CopyRun) -> None:
    """Copy tasks and scopes; the task that is to run anew, and the scopes around it, count as failed.

    Args:
        database: in a transaction that has both runs locked; the new one was added.
        effect: what to copy, and up to which task.
    """
    tasks, scopes = _tasks(database, effect.source), _scopes(database, effect.source)
    again = _task(database, tasks, effect.task_id)
    around = tuple(_around(scopes, again))
    follows = _follows(tasks, scopes, again, around)
    kept = {path: task for path, task in tasks.items() if path not in follows}
    ids = _ids(kept, scopes, effect)
    new = {old: database.id_in(task_id) for old, task_id in ids.items()} | {None: None}
    began, *trimmed = database.select(
        "SELECT started_at, trimmed, trimmed_before FROM runs WHERE id = :id", {"id": effect.source}
    )[0]
    database.copy(
        "tasks", rows.TASK_KEY, ("run_id", "id", "inputs_from"), OF_TASK,
        [(effect.source, task.id, effect.run_id, new[task.id], new[task.inputs_from]) for task in kept.values()],
    )  # fmt: skip
    database.copy(
        "scopes", ("run_id", "path"), ("run_id", "opener", "due"), OF_SCOPE,
        [
            (effect.source, scope.path, effect.run_id, new[scope.opener], _due(scope, tasks, began, effect.at))
            for scope in scopes.values() if scope.path not in follows
        ],
    )  # fmt: skip
    counted = (effect.run_id, len(kept), new[tasks[paths.ROOT].id], *trimmed)
    database.update("runs", ("id",), ("tasks", "root", "trimmed", "trimmed_before"), [counted])
    for scope in around:
        if scopes[scope].return_exceptions:
            _take_back(database, effect.run_id, scope, paths.child(scope, paths.branch(scope, again.path)))
    _fail(database, effect, new[again.id], around)
    _wait_anew(database, effect)
    _delay_anew(database, effect)


def _tasks(database: Database, run_id: str) -> dict[str, _Task]:
    found = database.select(
        "SELECT id, path, scope, inputs_from, created_at, unfolded FROM tasks WHERE run_id = :run_id",
        {"run_id": run_id},
    )
    return {row[1]: _Task(*row) for row in found}


def _scopes(database: Database, run_id: str) -> dict[str, _Scope]:
    found = database.select(
        "SELECT path, parent, opener, due, return_exceptions FROM scopes WHERE run_id = :run_id", {"run_id": run_id}
    )
    return {row[0]: _Scope(*row) for row in found}


def _task(database: Database, tasks: Mapping[str, _Task], task_id: UUID | None) -> _Task:
    if task_id is None:
        return tasks[paths.ROOT]
    wanted = database.id_in(task_id)
    return next(task for task in tasks.values() if task.id == wanted)


def _around(scopes: Mapping[str, _Scope], task: _Task) -> Iterator[str]:
    """The scopes that the task stands in, from the inside out; the last one is the run's."""
    path: str | None = task.scope
    while path is not None:
        yield path
        path = scopes[path].parent


def _follows(
    tasks: Mapping[str, _Task], scopes: Mapping[str, _Scope], again: _Task, around: tuple[str, ...]
) -> frozenset[str]:
    """Paths of tasks and scopes that follow from a task: from it, and from the end of each Gather that it stands in."""
    follows: set[str] = set()
    ends = {paths.then(scope) for scope in around if scope}
    places = [(path, task.above, task.unfolded) for path, task in tasks.items()]
    places += [(scope.path, scope.path.rpartition(".")[0], None) for scope in scopes.values() if scope.path]
    for path, above, unfolded in sorted(places, key=lambda place: paths.order(place[0])):  # what comes before, first
        lost = above not in tasks and above not in scopes and path != paths.ROOT  # it was removed, see `flow.trimming`
        from_again = above == again.path or above in follows or (lost and again.path == paths.ROOT)
        if path != again.path and (from_again or (unfolded or path) in ends):
            follows.add(path)
    return frozenset(follows)


def _ids(tasks: Mapping[str, _Task], scopes: Mapping[str, _Scope], effect: CopyRun) -> dict[Any, UUID]:
    """Old ids to new ones, which are those of a run that was started: whoever computes one later finds its task."""
    ids: dict[Any, UUID] = {}
    for path in sorted(tasks, key=paths.order):  # parents first
        above = tasks[path].above
        parent: UUID | str = effect.run_id  # of the first task, and where the parent was removed
        if above in tasks:  # the task that returned it
            parent = ids[tasks[above].id]
        elif above in scopes and path != paths.ROOT:  # that opened the Gather whose branch or continuation it is
            parent = ids[scopes[above].opener]
        ids[tasks[path].id] = paths.task_id(effect.secret, parent, path)
    return ids


def _due(scope: _Scope, tasks: Mapping[str, _Task], began: float, now: float) -> float | None:
    """A Gather's time begins anew. It was opened when its first branch was created, which a rerun may have copied."""
    first = tasks.get(paths.child(scope.path, 0))
    if scope.due is None or first is None:
        return None
    return now + scope.due - max(began, first.created_at)


def _take_back(database: Database, run_id: str, scope: str, branch: str) -> None:
    """A branch whose failure was its value is to get another one.

    Its leaf is the task that failed, or one that succeeded and whose Gather failed: only that one returned something.
    """
    database.execute(
        "UPDATE tasks SET leaf_of = NULL, status = CASE WHEN nodes IS NULL THEN status ELSE 'succeeded' END, "
        "error = CASE WHEN nodes IS NULL THEN error END "
        "WHERE run_id = :run_id AND leaf_of = :scope AND status = 'failed' "
        "AND (path = :branch OR (path >= :first AND path < :end))",  # "/" comes after "."
        {"run_id": run_id, "scope": scope, "branch": branch, "first": f"{branch}{paths.FOLDED}", "end": f"{branch}/"},
    )


def _fail(database: Database, effect: CopyRun, task_id: Any, around: tuple[str, ...]) -> None:
    fresh: dict[str, Any] = {"status": "failed", "leaf_of": None, "outputs": None, "nodes": None}
    fresh["created_at"] = effect.at
    if effect.inputs is not None:
        slot = None if effect.slot is None else rows.utf8(effect.slot)
        fresh |= {"inputs": effect.inputs, "inputs_from": None, "slot": slot}
    database.update("tasks", rows.TASK_KEY, tuple(fresh), [(effect.run_id, task_id, *fresh.values())])
    database.update("scopes", ("run_id", "path"), ("status",), [(effect.run_id, path, "failed") for path in around])


def _wait_anew(database: Database, effect: CopyRun) -> None:
    """Waits that are opened again have their whole time."""
    waits = database.select(
        "SELECT id, wait FROM tasks WHERE run_id = :run_id AND wait IS NOT NULL AND status IN ('failed', 'cancelled')",
        {"run_id": effect.run_id},
    )
    timed = [(task_id, making.decode_wait(wait).timeout) for task_id, wait in waits]
    due = [(effect.run_id, task_id, effect.at + timeout) for task_id, timeout in timed if timeout is not None]
    if due:
        database.update("tasks", rows.TASK_KEY, ("due",), due)


def _delay_anew(database: Database, effect: CopyRun) -> None:
    """So have tasks that were cancelled before their delay was over."""
    delayed = database.select(
        "SELECT t.id, source.due - source.created_at FROM tasks AS t "
        "JOIN tasks AS source ON source.run_id = :source AND source.path = t.path "
        f"WHERE t.run_id = :run_id AND t.status = 'cancelled' AND t.held_for = '{DELAY}' AND source.due IS NOT NULL",
        {"run_id": effect.run_id, "source": effect.source},
    )
    due = [(effect.run_id, task_id, effect.at, effect.at + delay) for task_id, delay in delayed]
    if due:
        database.update("tasks", rows.TASK_KEY, ("created_at", "due"), due)
