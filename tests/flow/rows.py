"""A store of dicts for tests of the core: it does to rows what the changes say, and carries out the effects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from flowkit.flow import paths
from flowkit.flow.advance import Context
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
    Reported,
    SettleTask,
    Started,
    Supersede,
)  # fmt: skip
from flowkit.flow.fold import fold, keys
from flowkit.flow.limits import Limits
from flowkit.flow.state import Leaf, Run, Scope, ScopeStatus, State, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire


@dataclass
class Rows:
    limits: Limits = field(default_factory=Limits)
    now: float = 1000.0
    runs: dict[str, Run] = field(default_factory=dict)
    scopes: dict[tuple[str, str], Scope] = field(default_factory=dict)
    tasks: dict[tuple[str, UUID], Task] = field(default_factory=dict)
    superseded: list[Supersede] = field(default_factory=list)
    seen: list[Change] = field(default_factory=list)

    def feed(self, *events: Event) -> list[Change]:
        """One transaction: fold, write, and what comes back, until nothing follows."""
        pending, all_changes = list(events), []
        while pending:
            changes, later = fold(self._load(pending), pending, Context(self.now, b"secret", self.limits))
            all_changes += changes
            pending = later + self._write(changes)
        self.seen += all_changes
        self.check()
        return all_changes

    def start(self, node: str = "a", run: str = "r", **inputs) -> Task:
        self.feed(Started(run, wire.Start(node=node, run_id=run, inputs=inputs)))
        return self.at("0", run)

    def report(self, path: str, nodes=(), outputs=None, run: str = "r", **more) -> list[Change]:
        return self.feed(self.result(path, nodes, outputs, run, **more))

    def result(self, path: str, nodes=(), outputs=None, run: str = "r", **more) -> Reported:
        from flowkit.wire.items import wrap

        task = self.at(path, run)
        return Reported(
            wire.Result(task_id=task.id, run_id=run, nodes=tuple(map(wrap, nodes)), outputs=outputs or {}, **more)
        )

    def fail(self, path: str, run: str = "r", message: str = "boom") -> list[Change]:
        return self.report(path, run=run, status="failed", error=wire.Error(type="ValueError", message=message))

    def at(self, path: str, run: str = "r") -> Task:
        return next(task for task in self.tasks.values() if (task.run_id, task.path) == (run, path))

    def inputs(self, path: str, run: str = "r"):
        task = self.at(path, run)
        raw = task.inputs if task.inputs is not None else self.tasks[run, task.inputs_from].outputs
        return codec.loads(raw)

    def outstanding(self, run: str = "r") -> list[str]:
        found = [task.path for task in self.tasks.values() if task.run_id == run and task.status.outstanding]
        return sorted(found, key=paths.order)

    def outputs(self, run: str = "r"):
        row = self.runs[run]
        raw = row.outputs if row.outputs is not None else self.tasks[run, row.outputs_from].outputs
        return codec.loads(raw)

    def check(self) -> None:
        """What must hold after every transaction."""
        for (run, path), scope in self.scopes.items():
            direct = [task for task in self.tasks.values() if task.run_id == run and task.scope == path]
            count = sum(task.status.outstanding for task in direct)
            count += sum(
                other.run_id == run and other.parent == path and other.status is ScopeStatus.OPEN
                for other in self.scopes.values()
            )
            if scope.status is ScopeStatus.OPEN:
                assert scope.outstanding == count, (path, scope, direct)
                assert count > 0, f"scope {path!r} is open with nothing outstanding"
            else:
                assert count == 0, f"scope {path!r} is {scope.status} with {count} outstanding"
        for run in self.runs.values():
            assert run.tasks == sum(task.run_id == run.id for task in self.tasks.values())
            assert run.status.ended == (not self.outstanding(run.id))

    def _load(self, events: Iterable[Event]) -> State:
        wanted = keys(events)
        tasks = {key: self.tasks[key] for key in wanted.tasks if key in self.tasks}
        scope_keys = {*wanted.scopes, *((task.run_id, task.scope) for task in tasks.values())}
        roots = {run: self.at("0", run).inputs for run in wanted.roots if run in self.runs}
        return State(
            runs={run: self.runs[run] for run in wanted.runs if run in self.runs},
            inputs={run: raw for run, raw in roots.items() if raw is not None},
            tasks=tasks,
            scopes={key: self.scopes[key] for key in scope_keys if key in self.scopes},
        )

    def _write(self, changes: Sequence[Change]) -> list[Event]:
        for change in changes:
            self._row(change)
        return [event for change in changes for event in self._effect(change)]

    def _row(self, change: Change) -> None:
        match change:
            case AddRun(run):
                assert run.id not in self.runs
                self.runs[run.id] = run
            case AddScope(scope):
                assert (scope.run_id, scope.path) not in self.scopes
                self.scopes[scope.run_id, scope.path] = scope
            case AddTask(task):
                assert (task.run_id, task.id) not in self.tasks, "a task is created once"
                self.tasks[task.run_id, task.id] = task
            case CountTasks(run_id=run, tasks=count):
                self.runs[run] = replace(self.runs[run], tasks=count)
            case SettleTask() | MoveTask():
                fields = {name: getattr(change, name) for name in change.__dataclass_fields__}
                key = fields.pop("run_id"), fields.pop("task_id")
                self.tasks[key] = replace(self.tasks[key], **fields)
            case MarkLeaf(run, task, scope):
                self.tasks[run, task] = replace(self.tasks[run, task], leaf_of=scope)
            case MoveScope(run_id=run, path=path, outstanding=count, status=status):
                self.scopes[run, path] = replace(self.scopes[run, path], outstanding=count, status=status)
            case EndRun(run_id=run):
                assert not self.runs[run].status.ended, "a run ends once"
                fields = {name: getattr(change, name) for name in change.__dataclass_fields__ if name != "run_id"}
                self.runs[run] = replace(self.runs[run], **fields)
            case Supersede():
                self.superseded.append(change)

    def _effect(self, change: Change) -> list[Event]:
        match change:
            case Collect(run, path):
                scope = self.scopes[run, path]
                opener = self.tasks[run, scope.opener].outputs if scope.opener else b"{}"
                leaves = tuple(
                    Leaf(task.path, task.id, task.outputs, task.error, task.message)
                    for task in self.tasks.values()
                    if task.run_id == run and task.leaf_of == path
                )
                return [Collected(run, path, opener, leaves)]
            case CancelBelow(run, path, scope, _):
                return self._cancel(run, path, scope)
        return []

    def _cancel(self, run: str, path: str, scope: str | None) -> list[Event]:
        def below(other: str) -> bool:
            return path == "" or other == path or other.startswith(path + ".")

        count = 0
        for key, task in self.tasks.items():
            if task.run_id == run and below(task.path) and task.status.outstanding:
                self.tasks[key] = replace(task, status=TaskStatus.CANCELLED)
                count += task.scope == scope
        for key, child in self.scopes.items():
            if child.run_id == run and below(child.path) and child.status is ScopeStatus.OPEN:
                self.scopes[key] = replace(child, status=ScopeStatus.CANCELLED, outstanding=0)
                count += child.parent == scope
        return [] if scope is None else [Cancelled(run, scope, count)]
