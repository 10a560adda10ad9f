"""A store of dicts for tests of the core: it does to rows what the changes say, and carries out the effects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from flowkit.flow import paths
from flowkit.flow.audit import Whole, problems
from flowkit.flow.changes import (
    AddRun,
    AddScope,
    AddSignal,
    AddTask,
    CancelBelow,
    Change,
    Collect,
    CopyRun,
    CountTasks,
    EndRun,
    FailOutstanding,
    HoldUnsent,
    LiftLeaves,
    MarkLeaf,
    MoveRun,
    MoveScope,
    MoveTask,
    NoteCommand,
    Reopen,
    SettleTask,
    Supersede,
    TakeSignal,
    TrimRun,
    Unhold,
)
from flowkit.flow.context import Context
from flowkit.flow.events import (  # fmt: skip
    Cancelled,
    Collected,
    Commanded,
    Event,
    Reported,
    RunExpired,
    ScopeExpired,
    Started,
    WaitExpired,
)
from flowkit.flow.fold import fold, keys
from flowkit.flow.limits import Limits
from flowkit.flow.slots import NodeLimit
from flowkit.flow.state import (
    DELAY,
    LIMIT,
    RETRY,
    WINDOW,
    Leaf,
    Run,
    RunStatus,
    Scope,
    ScopeStatus,
    Signal,
    State,
    Task,
    TaskStatus,
)
from flowkit.flow.trimming import PastScope, PastTask, trim
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.flow.copying import copy

SECRET = b"secret"


@dataclass
class Rows:
    limits: Limits = field(default_factory=Limits)
    now: float = 1000.0
    runs: dict[str, Run] = field(default_factory=dict)
    scopes: dict[tuple[str, str], Scope] = field(default_factory=dict)
    tasks: dict[tuple[str, UUID], Task] = field(default_factory=dict)
    superseded: list[Supersede] = field(default_factory=list)
    signals: dict[tuple[str, str], list[Signal]] = field(default_factory=dict)
    commands: set[UUID] = field(default_factory=set)
    refusals: dict[UUID, str] = field(default_factory=dict)
    on_error: dict[str, str] = field(default_factory=dict)
    node_limits: dict[str, NodeLimit] = field(default_factory=dict)
    queue_timeouts: dict[str, float] = field(default_factory=dict)
    steady_for: float = math.inf
    dropped: set[object] = field(default_factory=set)  # cancelled with a branch, not with the run
    seen: list[Change] = field(default_factory=list)

    def feed(self, *events: Event) -> list[Change]:
        """One transaction: fold, write, and what comes back, until nothing follows."""
        pending, all_changes = list(events), []
        context = Context(self.now, SECRET, self.limits, self.node_limits, self.queue_timeouts, self.steady_for)
        while pending:
            changes, later = fold(self._load(pending), pending, context)
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

    def command(self, kind: str, run: str = "r", **more) -> list[Change]:
        return self.feed(Commanded(wire.Command(**({"id": uuid4(), "kind": kind, "run_id": run} | more))))

    def pass_time(self, seconds: float) -> None:
        """What the store finds due: held tasks are released, waits, scopes and runs expire."""
        self.now += seconds
        running = {run.id for run in self.runs.values() if run.status is RunStatus.RUNNING}
        for key, task in self.tasks.items():
            if task.status is TaskStatus.HELD and task.due is not None and task.due <= self.now and key[0] in running:
                self.tasks[key] = task._replace(status=TaskStatus.QUEUED, held_for=None, due=None)
        waits = [task for task in self.tasks.values() if task.status is TaskStatus.WAITING and self._is_due(task.due)]
        scopes = [
            scope for scope in self.scopes.values() if scope.status is ScopeStatus.OPEN and self._is_due(scope.due)
        ]
        runs = [run for run in self.runs.values() if not run.status.ended and self._is_due(run.deadline)]
        events = [
            *(WaitExpired(task.run_id, task.id) for task in waits),
            *(ScopeExpired(scope.run_id, scope.path) for scope in scopes),
            *(RunExpired(run.id, self._handling(run.id)) for run in runs),
        ]
        self.feed(*(event for event in events if event.run_id in running or isinstance(event, RunExpired)))

    def _handling(self, run: str) -> bytes | None:
        handlers = (task for task in self.tasks.values() if task.run_id == run and task.handler)
        return next((task.inputs for task in handlers if task.status.outstanding), None)

    def _is_due(self, due: float | None) -> bool:
        return due is not None and due <= self.now

    def at(self, path: str, run: str = "r") -> Task:
        return next(task for task in self.tasks.values() if (task.run_id, task.path) == (run, path))

    def inputs(self, path: str, run: str = "r"):
        return codec.loads(self._inputs(self.at(path, run)))

    def _inputs(self, task: Task) -> bytes:
        if task.inputs is not None:
            return task.inputs
        return self.tasks[task.run_id, task.inputs_from].outputs

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
            count = self._count(scope)
            if scope.status is ScopeStatus.OPEN:
                assert scope.outstanding == count, (run, path, scope)
                assert count > 0, f"scope {path!r} is open with nothing outstanding"
            else:
                assert count == 0, f"scope {path!r} is {scope.status} with {count} outstanding"
        for run in self.runs.values():
            assert run.tasks == sum(task.run_id == run.id for task in self.tasks.values())
            assert run.status.ended == (not self.outstanding(run.id))
            assert list(problems(self.whole(run.id), SECRET)) == []

    def whole(self, run: str = "r") -> Whole:
        row = self.runs[run]
        if row.outputs is None and row.outputs_from is not None:
            row = row._replace(outputs=self.tasks[run, row.outputs_from].outputs)
        scopes = tuple(scope for scope in self.scopes.values() if scope.run_id == run)
        return Whole(row, scopes, tuple(task for task in self.tasks.values() if task.run_id == run))

    def _load(self, events: Iterable[Event]) -> State:
        wanted = keys(events)
        tasks = {key: self.tasks[key] for key in wanted.tasks if key in self.tasks}
        scope_keys = {*wanted.scopes, *((task.run_id, task.scope) for task in tasks.values())}
        roots = {run: self.at("0", run).inputs for run in wanted.roots if run in self.runs}
        tasks |= {key: self.tasks[key] for key in wanted.payloads if key in self.tasks}
        waiting = {
            key: [
                task.id
                for task in sorted(self.tasks.values(), key=lambda task: (task.created_at, paths.order(task.path)))
                if (task.run_id, task.signal) == key and task.status is TaskStatus.WAITING
            ]
            for key in wanted.waits
        }
        return State(
            payloads={key: self._inputs(self.tasks[key]) for key in wanted.payloads if key in self.tasks},
            waits=waiting,
            signals={key: list(self.signals.get(key, [])) for key in wanted.signals},
            commands=self.commands & wanted.commands,
            refusals={command: why for command, why in self.refusals.items() if command in wanted.commands},
            on_error=dict(self.on_error),
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
                self.runs[run] = self.runs[run]._replace(tasks=count)
            case SettleTask() | MoveTask():
                fields = change._asdict()
                key = fields.pop("run_id"), fields.pop("task_id")
                self.tasks[key] = self.tasks[key]._replace(**fields)
            case MarkLeaf(run, task, scope, error):
                kept = {} if error is None else {"status": TaskStatus.FAILED, "error": error}
                self.tasks[run, task] = self.tasks[run, task]._replace(leaf_of=scope, **kept)
            case MoveScope(run_id=run, path=path, outstanding=count, status=status):
                self.scopes[run, path] = self.scopes[run, path]._replace(outstanding=count, status=status)
            case EndRun(run_id=run):
                assert not self.runs[run].status.ended, "a run ends once"
                fields = {name: getattr(change, name) for name in change.__dataclass_fields__ if name != "run_id"}
                self.runs[run] = self.runs[run]._replace(**fields)
                if change.status is not RunStatus.FAILED:
                    self.signals = {key: kept for key, kept in self.signals.items() if key[0] != run}
            case Supersede():
                self.superseded.append(change)
            case MoveRun(run, status):
                ended = {} if self.runs[run].ended_at is None else {"ended_at": None, "message": "", "error": None}
                self.runs[run] = self.runs[run]._replace(status=status, **ended)
            case NoteCommand(id=command, refused=refused):
                self.commands.add(command)
                if refused is not None:
                    self.refusals[command] = refused
            case AddSignal(run, name, signal):
                self.signals.setdefault((run, name), []).append(signal)
            case TakeSignal(run, name, signal, _):
                self.signals[run, name] = [kept for kept in self.signals.get((run, name), []) if kept.id != signal]

    def _effect(self, change: Change) -> list[Event]:
        match change:
            case Collect(run, path):
                return [self._collect(run, path)]
            case CancelBelow(run, path, scope, _):
                return self._cancel(run, path, scope)
            case LiftLeaves(run, path, parent):
                for key, task in self.tasks.items():
                    if (task.run_id, task.leaf_of) == (run, path):
                        self.tasks[key] = task._replace(leaf_of=parent)
            case Unhold(run, reason):
                for key, task in self._of(run, TaskStatus.HELD, reason):
                    limited = task.slot is not None
                    status, why = (TaskStatus.HELD, LIMIT) if limited else (TaskStatus.QUEUED, None)
                    self.tasks[key] = task._replace(status=status, held_for=why)
            case HoldUnsent(run, reason):
                queued = [one for one in self._of(run, TaskStatus.QUEUED, None) if one[1].slot is None]
                for key, task in [*queued, *self._of(run, TaskStatus.HELD, LIMIT)]:
                    self.tasks[key] = task._replace(status=TaskStatus.HELD, held_for=reason)
            case FailOutstanding(run, scope, error, _):
                return self._fail_outstanding(run, scope, error)
            case CopyRun():
                copy(self, change)
            case TrimRun(run, keep):
                self._trim(run, keep)
            case Reopen(run, _):
                return self._reopen(run)
        return []

    def _collect(self, run: str, path: str) -> Collected:
        scope = self.scopes[run, path]
        opener = self.tasks[run, scope.opener] if scope.opener else None
        leaves = tuple(
            Leaf(task.path, task.id, task.outputs, task.error, task.message)
            for task in self.tasks.values()
            if task.run_id == run and task.leaf_of == path
        )
        if opener is None:
            return Collected(run, path, b"{}", leaves)
        return Collected(run, path, opener.outputs or b"{}", leaves, opener.depth, opener.created_at)

    def _cancel(self, run: str, path: str, scope: str | None) -> list[Event]:
        def below(other: str) -> bool:
            return path == "" or paths.is_below(other, path)

        count = 0
        for key, task in self.tasks.items():
            if task.run_id == run and below(task.path) and task.status.outstanding:
                self.tasks[key] = task._replace(status=TaskStatus.CANCELLED)
                count += task.scope == scope
                self.dropped |= {key} if scope is not None else set()
        for key, child in self.scopes.items():
            if child.run_id == run and below(child.path) and child.status is ScopeStatus.OPEN:
                self.scopes[key] = child._replace(status=ScopeStatus.CANCELLED, outstanding=0)
                count += child.parent == scope
                self.dropped |= {key} if scope is not None else set()
        return [] if scope is None else [Cancelled(run, scope, count)]

    def _trim(self, run: str, keep: int) -> None:
        past = [
            PastTask(task.id, task.path, task.scope, task.status, task.created_at, task.leaf_of, task.inputs_from,
                     task.nodes is not None)
            for task in self.tasks.values() if task.run_id == run
        ]  # fmt: skip
        scopes = [
            PastScope(scope.path, scope.parent, scope.status, scope.opener)
            for scope in self.scopes.values()
            if scope.run_id == run
        ]
        gone = trim(past, scopes, keep)
        if gone is None:
            return
        for task_id in gone.inherit:
            task = self.tasks[run, task_id]
            self.tasks[run, task_id] = task._replace(inputs=self._inputs(task), inputs_from=None)
        self.tasks = {key: task for key, task in self.tasks.items() if key[0] != run or task.id not in gone.tasks}
        self.scopes = {key: scope for key, scope in self.scopes.items() if key[0] != run or key[1] not in gone.scopes}
        row = self.runs[run]
        self.runs[run] = row._replace(
            tasks=row.tasks - len(gone.tasks), trimmed=row.trimmed + len(gone.tasks), trimmed_before=gone.before
        )

    def _of(self, run: str, status: TaskStatus, held_for: str | None) -> list[tuple[tuple[str, UUID], Task]]:
        """Unsent tasks of a run, with their keys."""
        wanted = (run, status, held_for, None)
        return [
            (key, task)
            for key, task in self.tasks.items()
            if (task.run_id, task.status, task.held_for, task.sent_at) == wanted
        ]

    def _fail_outstanding(self, run: str, path: str, error: bytes) -> list[Event]:
        count = 0
        for key, task in self.tasks.items():
            if (task.run_id, task.scope) == (run, path) and task.status.outstanding:
                ended = {"status": TaskStatus.FAILED, "held_for": None, "due": None}
                self.tasks[key] = task._replace(leaf_of=path, error=error, **ended)
                count += 1
        for child in [scope for scope in self.scopes.values() if (scope.run_id, scope.parent) == (run, path)]:
            if child.status is ScopeStatus.OPEN:
                opener = self.tasks[run, child.opener]
                ended = {"status": TaskStatus.FAILED, "held_for": None, "due": None}
                self.tasks[run, opener.id] = opener._replace(leaf_of=path, error=error, **ended)
                self._cancel(run, child.path, None)
                count += 1
        return [Cancelled(run, path, count)]

    def _reopen(self, run: str) -> list[Event]:
        values = [
            paths.child(task.leaf_of, paths.branch(task.leaf_of, task.path))
            for task in self.tasks.values()
            if task.run_id == run and task.status is TaskStatus.FAILED and task.leaf_of is not None
        ]

        def settled(path: str) -> bool:
            return any(paths.is_below(path, branch) for branch in values)

        for key, task in self.tasks.items():
            failed = task.status is TaskStatus.FAILED and task.leaf_of is None and task.nodes is None
            cancelled = task.status is TaskStatus.CANCELLED and key not in self.dropped
            if task.run_id == run and (failed or cancelled) and not settled(task.path):
                why = task.held_for if task.held_for == WINDOW else LIMIT if task.slot else None
                due = task.due if task.wait and task.due is not None and task.due > self.now else None
                if cancelled and task.held_for in (DELAY, RETRY) and task.due is not None:
                    why, due = task.held_for, task.due
                elif task.held_for == LIMIT and not task.slot:
                    why, due = DELAY, self.now
                status = TaskStatus.WAITING if task.wait else TaskStatus.HELD if why else TaskStatus.QUEUED
                self.tasks[key] = task._replace(
                    status=status, attempt=task.attempt + (not task.wait), tries=1, error=None, due=due,
                    held_for=None if task.wait else why, sent_at=None,
                )  # fmt: skip
        reopened = {ScopeStatus.FAILED, ScopeStatus.CANCELLED}
        for key, scope in self.scopes.items():
            if scope.run_id == run and scope.status in reopened and key not in self.dropped and not settled(key[1]):
                due = scope.due if scope.due is not None and scope.due > self.now else None
                self.scopes[key] = scope._replace(status=ScopeStatus.OPEN, due=due)
        drained = []
        for key, scope in self.scopes.items():
            if scope.run_id == run and scope.status is ScopeStatus.OPEN:
                self.scopes[key] = scope._replace(outstanding=self._count(scope))
                drained += [] if self._count(scope) else [self._collect(run, scope.path)]
        return drained

    def _count(self, scope: Scope) -> int:
        place = (scope.run_id, scope.path)
        direct = sum((task.run_id, task.scope) == place and task.status.outstanding for task in self.tasks.values())
        return direct + sum(
            (child.run_id, child.parent) == place and child.status is ScopeStatus.OPEN for child in self.scopes.values()
        )
