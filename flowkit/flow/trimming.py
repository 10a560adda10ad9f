"""Which tasks of a run that goes on are history: a loop may make a million steps, and only the newest are kept.

What is removed has ended and nothing in the run refers to it any more. So what stays decides as before: values of open
scopes, what opened them, failures and what was cancelled for them, and the first task, which is the run's inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from flowkit.flow import paths
from flowkit.flow.state import ScopeStatus, TaskStatus


class PastTask(NamedTuple):
    """What is asked of a task."""

    id: UUID
    path: str
    scope: str
    status: TaskStatus
    created_at: float
    leaf_of: str | None
    inputs_from: UUID | None
    handled: bool  # it names what follows from it: a failed task has a handler then


class PastScope(NamedTuple):
    """What is asked of a scope."""

    path: str
    parent: str | None
    status: ScopeStatus
    opener: UUID | None


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What is to be removed, and what has to be done before."""

    tasks: frozenset[UUID]
    scopes: frozenset[str]
    inherit: frozenset[UUID]  # tasks that stay, and whose inputs are the outputs of one that is removed
    before: float  # all that is removed was created before this time


def trim(tasks: Iterable[PastTask], scopes: Iterable[PastScope], keep: int) -> Trimmed | None:
    """Choose what is removed so that the newest ``keep`` tasks stay, and all that is still needed; None: nothing."""
    every, scope = sorted(tasks, key=lambda task: task.created_at), {one.path: one for one in scopes}
    if len(every) <= keep:
        return None
    before = every[-keep].created_at
    units: dict[str, list[PastTask]] = {path: [] for path in (_top(one, scope) for one in scope.values()) if path}
    gone: set[UUID] = set()
    for task in every:
        top = _top(scope[task.scope], scope)
        if top is not None:
            units[top].append(task)
        elif task.created_at < before and _is_history(task):
            gone.add(task.id)
    over = {path for path, inside in units.items() if _is_over(scope[path], inside, gone, before)}
    needed = {one.path for one in scope.values() if one.status is ScopeStatus.OPEN}
    for path in over:
        gone.update(task.id for task in units[path] if task.leaf_of not in needed)
    kept_in: dict[str | None, int] = defaultdict(int)
    for task in every:
        kept_in[_top(scope[task.scope], scope)] += task.id not in gone
    closed = frozenset(path for path, one in scope.items() if (top := _top(one, scope)) in over and not kept_in[top])
    gone -= {one.opener for path, one in scope.items() if path not in closed and one.opener is not None}
    if not gone:
        return None
    inherit = frozenset(task.id for task in every if task.inputs_from in gone and task.id not in gone)
    return Trimmed(frozenset(gone), closed, inherit, before)


def _top(one: PastScope, scope: dict[str, PastScope]) -> str | None:
    """The outermost scope around it (or it itself) that has ended: all inside ended with it. None: it is open."""
    top = None
    path: str | None = one.path
    while path is not None and path in scope:
        if scope[path].status is not ScopeStatus.OPEN:
            top = path
        path = scope[path].parent
    return top


def _is_history(task: PastTask) -> bool:
    """Whether a task that stands directly in an open scope is only history."""
    if task.path == paths.ROOT or task.leaf_of is not None:
        return False
    return task.status is TaskStatus.SUCCEEDED or (task.status is TaskStatus.FAILED and task.handled)


def _is_over(top: PastScope, inside: list[PastTask], gone: set[UUID], before: float) -> bool:
    """Whether a Gather has gone on, and all of it is old: it is removed as a whole."""
    if top.status is not ScopeStatus.CLOSED:
        return False
    return all(task.created_at < before for task in inside) if inside else top.opener in gone
