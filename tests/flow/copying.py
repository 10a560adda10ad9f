"""What ``CopyRun`` does to the rows of a store of dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from flowkit.flow import making, paths
from flowkit.flow.changes import CopyRun
from flowkit.flow.state import DELAY, Scope, ScopeStatus, Task, TaskStatus

if TYPE_CHECKING:
    from tests.flow.rows import Rows

ENDED_BADLY = (TaskStatus.FAILED, TaskStatus.CANCELLED)


def copy(rows: Rows, effect: CopyRun) -> None:
    """Row by row, as one would say it; the store does the same as a set."""
    tasks = {task.path: task for task in rows.tasks.values() if task.run_id == effect.source}
    scopes = {scope.path: scope for scope in rows.scopes.values() if scope.run_id == effect.source}
    again = tasks["0"] if effect.task_id is None else rows.tasks[effect.source, effect.task_id]
    around = [scopes[again.scope]]
    while around[-1].parent is not None:
        around.append(scopes[around[-1].parent])

    def before(path: str) -> str:
        found = tasks.get(path)
        return (path if found is None else found.unfolded or path).rpartition(".")[0]

    def follows(path: str) -> bool:
        after = [paths.then(scope.path) for scope in around if scope.path]
        if path == again.path or not path:
            return False
        named = path if path not in tasks else tasks[path].unfolded or path
        above = before(path)
        lost = above != "" and above not in tasks and above not in scopes
        return named in after or above == again.path or (lost and again.path == "0") or follows(above)

    kept = [task for task in tasks.values() if not follows(task.path)]
    ids: dict[UUID, UUID] = {}

    def id_of(task: Task) -> UUID:
        if task.id not in ids:
            above = before(task.path)
            opener = scopes[above].opener if above and above in scopes else None
            returned_by = tasks.get(above) or (None if opener is None else _task(tasks, opener))
            parent = effect.run_id if returned_by is None else id_of(returned_by)
            ids[task.id] = paths.task_id(effect.secret, parent, task.path)
        return ids[task.id]

    for task in kept:
        copied = task._replace(run_id=effect.run_id, id=id_of(task), due=None)
        if task.inputs_from is not None:
            copied = copied._replace(inputs_from=id_of(_task(tasks, task.inputs_from)))
        if any(scope.return_exceptions and _is_value(task, again, scope) for scope in around):
            opened = {"status": TaskStatus.SUCCEEDED, "error": None} if task.nodes is not None else {}
            copied = copied._replace(leaf_of=None, **opened)
        if task is again:
            fresh = {"outputs": None, "nodes": None, "leaf_of": None, "created_at": effect.at}
            given = {} if effect.inputs is None else {"inputs": effect.inputs, "inputs_from": None, "slot": effect.slot}
            copied = copied._replace(status=TaskStatus.FAILED, **fresh, **given)
        if copied.wait is not None and copied.status in ENDED_BADLY:
            timeout = making.decode_wait(copied.wait).timeout
            copied = copied._replace(due=None if timeout is None else effect.at + timeout)
        if copied.status is TaskStatus.CANCELLED and task.held_for == DELAY and task.due is not None:
            copied = copied._replace(created_at=effect.at, due=effect.at + task.due - task.created_at)
        rows.tasks[effect.run_id, copied.id] = copied
        if (effect.source, task.id) in rows.dropped and not _shares_a_branch(task.path, again, around):
            rows.dropped.add((effect.run_id, copied.id))
    for scope in scopes.values():
        if follows(scope.path):
            continue
        opener = None if scope.opener is None else id_of(_task(tasks, scope.opener))
        status = ScopeStatus.FAILED if scope in around else scope.status
        due = None if scope.due is None else effect.at + scope.due - _opened(rows, tasks, scope)
        copied_scope = scope._replace(run_id=effect.run_id, opener=opener, status=status, due=due)
        rows.scopes[effect.run_id, scope.path] = copied_scope
        if (effect.source, scope.path) in rows.dropped and not _shares_a_branch(scope.path, again, around):
            rows.dropped.add((effect.run_id, scope.path))
    source = rows.runs[effect.source]
    rows.runs[effect.run_id] = rows.runs[effect.run_id]._replace(
        tasks=len(kept), trimmed=source.trimmed, trimmed_before=source.trimmed_before
    )


def _task(tasks: dict[str, Task], task_id: UUID | None) -> Task:
    return next(task for task in tasks.values() if task.id == task_id)


def _branch(scope: Scope, path: str) -> str:
    return paths.child(scope.path, paths.branch(scope.path, path))


def _is_value(task: Task, again: Task, scope: Scope) -> bool:
    """Whether its failure was the value of the branch of ``scope`` that the task to run anew stands in."""
    return (
        task.leaf_of == scope.path
        and task.status is TaskStatus.FAILED
        and f"{task.path}.".startswith(f"{_branch(scope, again.path)}.")
    )


def _shares_a_branch(path: str, again: Task, around: list[Scope]) -> bool:
    return any(scope.return_exceptions and f"{path}.".startswith(f"{_branch(scope, again.path)}.") for scope in around)


def _opened(rows: Rows, tasks: dict[str, Task], scope: Scope) -> float:
    first = tasks.get(paths.child(scope.path, 0))
    began = rows.runs[scope.run_id].started_at
    return began if first is None else max(began, first.created_at)
