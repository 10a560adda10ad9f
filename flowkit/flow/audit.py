"""What must hold of a run, whatever died while it went on: told from its rows alone.

Every accepted result was applied once, every Gather went on once with the values of its branches in order, and nothing
that has ended waits for anything. ``flowkit doctor --audit`` asks this of a whole store, and the simulator after every
scenario.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from flowkit.flow import paths, values
from flowkit.flow.rerunning import ORIGIN
from flowkit.flow.state import Leaf, Run, RunStatus, Scope, ScopeStatus, Task, TaskStatus
from flowkit.wire import codec


@dataclass(frozen=True)
class Whole:
    """All rows of one run. Payloads are loaded; the run's ``outputs`` are resolved."""

    run: Run
    scopes: tuple[Scope, ...]
    tasks: tuple[Task, ...]
    unannounced_since: float | None = None  # Unix seconds: the broker has not confirmed the message about its end

    @cached_property
    def at(self) -> dict[str, Task]:
        """Tasks by their paths, folded or not."""
        folded = {task.unfolded: task for task in self.tasks if task.unfolded is not None}
        return {task.path: task for task in self.tasks} | folded

    @cached_property
    def scope(self) -> dict[str, Scope]:
        """Scopes by their paths."""
        return {scope.path: scope for scope in self.scopes}

    @cached_property
    def _leaves(self) -> dict[str, list[Leaf]]:
        leaves: dict[str, list[Leaf]] = defaultdict(list)
        for task in self.tasks:
            if task.leaf_of is not None:
                leaves[task.leaf_of].append(Leaf(task.path, task.id, task.outputs, task.error))
        return leaves

    def leaves(self, scope: str) -> list[Leaf]:
        """The values that a scope consists of."""
        return self._leaves.get(scope, [])


def problems(whole: Whole, secret: bytes, *, announced_before: float | None = None) -> Iterator[str]:
    """What does not hold, a sentence each.

    Args:
        whole: the rows of one run, as they were at one moment.
        secret: of the store, which the ids of tasks follow from.
        announced_before: Unix seconds; what ended before then was announced. None: nobody can tell.
    """
    for path, count in Counter(task.path for task in whole.tasks).items():
        if count > 1:
            yield f"{count} tasks stand at {path}"
    if whole.run.tasks != len(whole.tasks):
        yield f"the run counts {whole.run.tasks} tasks, and has {len(whole.tasks)}"
    if whole.run.status.ended:
        yield from _left(whole)
        if announced_before is not None and (whole.unannounced_since or announced_before) < announced_before:
            yield "it has ended, and its end was never announced"
    else:
        yield from _counters(whole)
    for task in whole.tasks:
        yield from _place(whole, task, secret)
        if task.status is TaskStatus.SUCCEEDED:
            yield from _successors(whole, task)
    for scope in whole.scopes:
        if scope.status is ScopeStatus.CLOSED and scope.then is not None:
            yield from _continuation(whole, scope)
    if whole.run.status is RunStatus.SUCCEEDED:
        yield from _outputs(whole)


def _left(whole: Whole) -> Iterator[str]:
    for task in whole.tasks:
        if task.status.outstanding:
            yield f"task {task.path} ({task.node}) is {task.status}, and the run is {whole.run.status}"
    for scope in whole.scopes:
        if scope.status is ScopeStatus.OPEN:
            yield f"scope {scope.path or 'of the run'} is open, and the run is {whole.run.status}"


def _counters(whole: Whole) -> Iterator[str]:
    """The rule of ``Transaction.recount``, and that something is always left to be waited for."""
    waits = Counter(task.scope for task in whole.tasks if task.status.outstanding)
    waits += Counter(
        scope.parent for scope in whole.scopes if scope.status is ScopeStatus.OPEN and scope.parent is not None
    )
    for scope in whole.scopes:
        if scope.status is ScopeStatus.OPEN and scope.outstanding != waits[scope.path]:
            where = scope.path or "of the run"
            yield f"scope {where} counts {scope.outstanding} outstanding, and has {waits[scope.path]}"
    if not waits[""]:
        yield f"the run is {whole.run.status}, and nothing in it is outstanding"


def _place(whole: Whole, task: Task, secret: bytes) -> Iterator[str]:
    """A task stands where something put it, and its id follows from that."""
    if task.path == paths.ROOT:
        return
    above, _, last = (task.unfolded or task.path).rpartition(".")
    parent, scope = whole.at.get(above), whole.scope.get(above)
    if parent is not None and last != paths.THEN:
        opener: UUID | None = parent.id
        if parent.status.outstanding or parent.status is TaskStatus.CANCELLED:
            yield f"task {task.path} ({task.node}) follows from one that is {parent.status}"
    elif scope is not None:
        opener = scope.opener
        if last == paths.THEN and scope.status is not ScopeStatus.CLOSED:
            yield f"task {task.path} ({task.node}) goes on from a Gather that is {scope.status}"
        elif last != paths.THEN and int(last) >= scope.branches:
            yield f"task {task.path} ({task.node}) is a branch of a Gather that has {scope.branches}"
    else:
        if not whole.run.trimmed:  # what it follows from was removed
            yield f"task {task.path} ({task.node}) follows from nothing"
        return
    if whole.run.trimmed and whole.run.origin == ORIGIN:
        return  # ids of a copy follow from what was there to be copied
    if task.id != paths.task_id(secret, opener or whole.run.id, task.path):
        yield f"task {task.path} ({task.node}) has an id that does not follow from its place: {task.id}"


def _successors(whole: Whole, task: Task) -> Iterator[str]:
    """What a succeeded task named is there, and nothing else."""
    items: list[Any] = codec.loads(task.nodes) if task.nodes else []
    for index, item in enumerate(items):
        path, kind = paths.child(task.path, index), _kind(item)
        if kind == "gather":
            yield from _branches(whole, path, len(item["gather"]["sends"]))
        elif (kind == "detached") == (path in whole.at) and (kind == "detached" or not whole.run.trimmed):
            there = "a" if kind == "detached" else "no"
            yield f"task {task.path} ({task.node}) named a {kind}, and {there} task stands at {path}"
    if paths.child(task.path, len(items)) in whole.at:
        yield f"task {task.path} ({task.node}) named {len(items)} items, and more follow from it"


def _kind(item: Any) -> str:
    if isinstance(item, str):
        return "send"
    (kind,) = item
    return "detached" if kind == "send" and item[kind].get("detached") else str(kind)


def _branches(whole: Whole, path: str, count: int) -> Iterator[str]:
    if whole.run.trimmed:
        return  # some may have been removed
    if path not in whole.scope:
        yield f"a Gather of {count} stood at {path}, and no scope is there"
    elif missing := [number for number in range(count) if paths.child(path, number) not in whole.at]:
        yield f"the Gather at {path} has no task for {len(missing)} of {count} branches, such as {missing[0]}"


def _continuation(whole: Whole, scope: Scope) -> Iterator[str]:
    """A Gather that is over went on once, with the values of its branches in order."""
    then = whole.at.get(paths.then(scope.path))
    if whole.run.trimmed and (then is None or len(whole.leaves(scope.path)) < scope.branches):
        return  # some may have been removed
    if then is None:
        yield f"the Gather at {scope.path} is over, and nothing went on"
        return
    results = codec.loads(then.inputs or b"{}").get("results")
    expected = [codec.loads(value) for value in values.branch_values(scope.path, whole.leaves(scope.path))]
    if len(expected) != scope.branches:
        yield f"the Gather at {scope.path} has values of {len(expected)} of {scope.branches} branches"
    elif results != expected and not _taken_over(whole, then):
        yield f"task {then.path} ({then.node}) got results that are not those of its Gather in order"


def _taken_over(whole: Whole, task: Task) -> bool:
    """Whether a rerun has it from an earlier run, where it was looked at, or was given other inputs for it."""
    return whole.run.origin == ORIGIN and task.created_at <= whole.run.started_at


def _outputs(whole: Whole) -> Iterator[str]:
    if whole.run.outputs is None or codec.loads(whole.run.outputs) != codec.loads(values.value(whole.leaves(""))):
        yield "the run's outputs are not those of the tasks that end it"
