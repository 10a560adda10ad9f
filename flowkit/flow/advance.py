"""The rules of FlowKit: what follows from what happened.

``advance`` looks at the rows of one run and an event, and says what changes. Whoever calls it applies the changes to
the state before the next event, writes them all in one transaction, and folds the events that come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from uuid import UUID

from flowkit.flow import paths, values
from flowkit.flow.changes import (
    AddRun,
    AddScope,
    AddTask,
    AnnounceRun,
    BranchFailed,
    CancelBelow,
    Cancelled,
    Change,
    Collect,
    Collected,
    CountTasks,
    DeclareConflict,
    EndRun,
    Event,
    MarkLeaf,
    MoveScope,
    MoveTask,
    Orphan,
    Reported,
    SettleTask,
    Started,
    Supersede,
)
from flowkit.flow.limits import Limits
from flowkit.flow.state import Run, RunStatus, Scope, ScopeStatus, State, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, Wait, as_send, unwrap


@dataclass(frozen=True, slots=True)
class Context:
    """What ``advance`` needs beside state and event."""

    now: float  # Unix seconds
    secret: bytes  # of the store: ids of tasks follow from it
    limits: Limits = field(default_factory=Limits)


def advance(state: State, event: Event, context: Context) -> list[Change | Event]:
    """What follows from ``event``.

    Args:
        state: the rows that the event's keys name; it is only read.
        event: what happened.
        context: time, secret and limits.

    Returns:
        changes in the order in which they hold; an event among them is to be folded after they were written.
    """
    match event:
        case Started():
            changes = _started(state, event, context)
        case Reported():
            changes = _reported(state, event.result, context)
        case Collected():
            changes = _collected(state, event, context)
        case Cancelled():
            changes = _count_down(state.scopes[event.run_id, event.scope], event.count)
        case BranchFailed():
            changes = _branch_failed(state, event, context)
    return list(changes)


def _started(state: State, event: Started, context: Context) -> Iterator[Change | Event]:
    start, run_id, now = event.start, event.run_id, context.now
    run = state.runs.get(run_id)
    if run is not None:
        if run.node != start.node or codec.loads(state.inputs[run_id]) != start.inputs:
            yield DeclareConflict(run_id, start)
        elif run.status.ended:
            yield AnnounceRun(run_id)
        return
    inputs = codec.dumps(start.inputs)
    deadline = None if start.deadline is None else now + start.deadline
    tags = codec.dumps(start.tags)
    yield AddRun(
        Run(
            id=run_id,
            node=start.node,
            tags=tags,
            parent=start.parent,
            started_at=now,
            deadline=deadline,
            traceparent=event.traceparent,
            tasks=1,
        )
    )
    yield AddScope(Scope(run_id=run_id, path="", parent=None, outstanding=1))
    root = Task(
        run_id=run_id,
        id=paths.task_id(context.secret, run_id, paths.ROOT),
        path=paths.ROOT,
        scope="",
        node=start.node,
        status=TaskStatus.QUEUED,
        inputs=inputs,
        created_at=now,
    )
    if start.finished is not None:
        # A one-shot script ran the first task itself: it was never sent, and its outcome is applied at once.
        outcome = start.finished
        yield AddTask(replace(root, id=_one_shot_id(run_id, root.id), status=TaskStatus.RUNNING, sent_at=now))
        yield Reported(
            wire.Result(
                task_id=_one_shot_id(run_id, root.id),
                run_id=run_id,
                node=start.node,
                nodes=outcome.nodes,
                outputs=outcome.outputs,
                message=outcome.message,
                error=outcome.error,
                status=wire.Status(outcome.status),
                finished_at=now,
            )
        )
    elif start.delay > 0:
        yield AddTask(replace(root, status=TaskStatus.HELD, held_for="delay", due=now + start.delay))
    else:
        yield AddTask(root)


def _reported(state: State, result: wire.Result, context: Context) -> Iterator[Change | Event]:
    run = state.runs.get(result.run_id)
    if run is None:
        yield Orphan(result.run_id)
        return
    task = state.tasks.get((result.run_id, result.task_id))
    reason = _why_superseded(state, run, task, result)
    if task is None or reason is not None:
        yield Supersede(
            run_id=run.id,
            task_id=result.task_id,
            attempt=result.attempt,
            status=result.status,
            reason=reason or "unknown task",
            at=context.now,
        )
        return
    match result.status:
        case wire.Status.SUCCEEDED:
            yield from _succeeded(state, run, task, result, context)
        case wire.Status.FAILED:
            error = result.error or wire.Error(type="Failed", message=result.message)
            yield from _failed(state, task, result, error, context)
        case wire.Status.RETRY | wire.Status.RETURNED if task.attempt >= context.limits.max_attempts:
            limit = f"max_attempts: the task was sent {task.attempt} times"
            yield from _failed(state, task, result, wire.Error(type="LimitExceeded", message=limit), context)
        case wire.Status.RETRY:
            yield MoveTask(
                run_id=run.id,
                task_id=task.id,
                status=TaskStatus.HELD,
                attempt=task.attempt + 1,
                tries=task.tries + 1,
                held_for="retry",
                due=context.now + (result.retry_in or 0),
                error=_error(result.error, task),
                first_started_at=task.first_started_at or result.started_at,
                worker=result.worker,
            )
        case wire.Status.RETURNED:
            yield MoveTask(
                run_id=run.id,
                task_id=task.id,
                status=TaskStatus.QUEUED,
                attempt=task.attempt + 1,  # fences off whoever gave it back
                tries=task.tries,
                first_started_at=task.first_started_at,
            )
        case wire.Status.STARTED:
            started = result.started_at or context.now
            yield MoveTask(
                run_id=run.id,
                task_id=task.id,
                status=TaskStatus.RUNNING,
                attempt=task.attempt,
                tries=task.tries,
                sent_at=task.sent_at or context.now,
                first_started_at=task.first_started_at or started,
                started_at=started,
                worker=result.worker,
            )


def _why_superseded(state: State, run: Run, task: Task | None, result: wire.Result) -> str | None:
    why = None
    if run.status.ended:
        why = f"the run is {run.status}"
    elif task is None:
        why = "unknown task"
    elif not task.status.outstanding:
        why = f"the task is {task.status}"
    elif state.scopes[run.id, task.scope].status is not ScopeStatus.OPEN:
        why = "its Gather has failed"  # in this very batch: its tasks are about to be cancelled
    elif task.status is TaskStatus.WAITING:
        why = "the task waits for a signal"
    elif result.attempt is not None and result.attempt != task.attempt:
        why = f"attempt {result.attempt} is not the current one ({task.attempt})"
    return why


def _succeeded(state: State, run: Run, task: Task, result: wire.Result, context: Context) -> Iterator[Change | Event]:
    items = [unwrap(item) for item in result.nodes]
    refused = _refuse(task, items, context.limits)
    if refused is not None:
        yield from _failed(state, task, result, refused, context)
        return
    added = list(_children(task, items, context))
    created = sum(isinstance(change, AddTask) for change in added)
    exceeded = _exceeded(run, task, added, created, context.limits)
    if exceeded is not None:
        error = _error(exceeded, task)
        yield _settle(task, result, TaskStatus.FAILED, context, error=error)
        yield from _end_failed(run, error, context)
        return
    yield _settle(
        task,
        result,
        TaskStatus.SUCCEEDED,
        context,
        outputs=codec.dumps(result.outputs),
        nodes=_returned(result),
        leaf_of=None if items else task.scope,
    )
    yield from added
    if created:
        yield CountTasks(run_id=run.id, tasks=run.tasks + created)
    yield from _count_down(state.scopes[run.id, task.scope], 1 - len(items))
    for change in added:
        if isinstance(change, AddScope) and change.scope.outstanding == 0:
            yield Collect(run.id, change.scope.path)


def _children(task: Task, items: list[Send | Gather | Wait], context: Context) -> Iterator[AddScope | AddTask]:
    for index, item in enumerate(items):
        path = paths.child(task.path, index)
        match item:
            case Send():
                yield AddTask(_send(item, (task.run_id, task.id), path, task.scope, context))
            case Gather():
                yield AddScope(
                    Scope(
                        run_id=task.run_id,
                        path=path,
                        parent=task.scope,
                        outstanding=len(item.sends),
                        branches=len(item.sends),
                        opener=task.id,
                        then=_encode_send(as_send(item.then)),
                        return_exceptions=item.return_exceptions,
                    )
                )
                for number, send in enumerate(item.sends):
                    branch = paths.child(path, number)
                    yield AddTask(_send(as_send(send), (task.run_id, task.id), branch, path, context))


def _send(send: Send, parent: tuple[str, UUID], path: str, scope: str, context: Context) -> Task:
    """The task of a ``Send``; without inputs of its own it refers to its parent's outputs."""
    run_id, parent_id = parent
    return Task(
        run_id=run_id,
        id=paths.task_id(context.secret, parent_id, path),
        path=path,
        scope=scope,
        node=send.node,
        status=TaskStatus.HELD if send.delay > 0 else TaskStatus.QUEUED,
        held_for="delay" if send.delay > 0 else None,
        due=context.now + send.delay if send.delay > 0 else None,
        inputs=None if send.inputs is None else codec.dumps(send.inputs),
        inputs_from=parent_id if send.inputs is None else None,
        created_at=context.now,
    )


def _refuse(task: Task, items: list[Send | Gather | Wait], limits: Limits) -> wire.Error | None:
    """What makes a result a failure of its task, whoever sent it."""
    for item in items:
        if isinstance(item, Wait):
            return wire.Error(type="NotSupported", message=f"node {task.node}: Wait is not supported yet")
        if isinstance(item, Gather):
            if len(item.sends) > limits.max_gather:
                count = f"a Gather of {len(item.sends):,} sends is over max_gather ({limits.max_gather:,})"
                return wire.Error(type="LimitExceeded", message=f"{count}; split it, or raise the setting")
            if item.max_concurrency is not None or item.timeout is not None:
                what = "max_concurrency" if item.max_concurrency is not None else "timeout"
                return wire.Error(
                    type="NotSupported", message=f"node {task.node}: Gather({what}=…) is not supported yet"
                )
    return None


def _exceeded(run: Run, task: Task, added: list[AddScope | AddTask], created: int, limits: Limits) -> wire.Error | None:
    """What stops the whole run: a workflow that never ends, or explodes."""
    if run.tasks + created > limits.max_tasks:
        return wire.Error(
            type="LimitExceeded",
            message=f"max_tasks: the run would have {run.tasks + created:,} tasks, the limit is {limits.max_tasks:,}",
        )
    if added and paths.depth(task.path) + 2 > limits.max_depth:
        return wire.Error(
            type="LimitExceeded",
            message=f"max_depth: node {task.node} stands {paths.depth(task.path)} steps deep and goes on; "
            f"the limit is {limits.max_depth:,}. Is this an endless loop?",
        )
    return None


def _failed(
    state: State, task: Task, result: wire.Result, error: wire.Error, context: Context
) -> Iterator[Change | Event]:
    encoded = _error(error, task)
    yield _settle(task, result, TaskStatus.FAILED, context, error=encoded)
    failure = BranchFailed(task.run_id, task.scope, task.path, task.id, encoded)
    yield from _branch_failed(state, failure, context)


def _branch_failed(state: State, failure: BranchFailed, context: Context) -> Iterator[Change | Event]:
    run = state.runs[failure.run_id]
    scope = state.scopes[failure.run_id, failure.scope]
    if scope.status is not ScopeStatus.OPEN:
        return
    if scope.parent is None:
        yield from _end_failed(run, failure.error, context)
    elif scope.return_exceptions:
        yield MarkLeaf(run.id, failure.task_id, scope.path)
        branch = paths.child(scope.path, paths.branch(scope.path, failure.path))
        if scope.outstanding > 1:
            yield CancelBelow(run.id, branch, scope.path, context.now)
        yield from _count_down(scope, 1)
    else:
        yield MoveScope(run_id=run.id, path=scope.path, outstanding=0, status=ScopeStatus.FAILED)
        yield CancelBelow(run.id, scope.path, None, context.now)
        yield BranchFailed(run.id, scope.parent, scope.path, failure.task_id, failure.error)


def _end_failed(run: Run, error: bytes, context: Context) -> Iterator[Change]:
    told = codec.loads(error)
    message = (
        f"{told['node']}: {told['type']}: {told['message']}" if told["message"] else f"{told['node']}: {told['type']}"
    )
    yield EndRun(run_id=run.id, status=RunStatus.FAILED, ended_at=context.now, message=message[:1000], error=error)
    yield CancelBelow(run.id, "", None, context.now)


def _count_down(scope: Scope, by: int) -> Iterator[Change]:
    """Take ``by`` from the counter of a scope; a scope with nothing outstanding is collected."""
    if by == 0 or scope.status is not ScopeStatus.OPEN:
        return
    left = max(scope.outstanding - by, 0)
    yield MoveScope(run_id=scope.run_id, path=scope.path, outstanding=left, status=scope.status)
    if left == 0:
        yield Collect(scope.run_id, scope.path)


def _collected(state: State, event: Collected, context: Context) -> Iterator[Change | Event]:
    run, scope = state.runs[event.run_id], state.scopes[event.run_id, event.scope]
    if run.status.ended or scope.status is not ScopeStatus.OPEN:
        return
    if scope.parent is None:
        yield MoveScope(run_id=run.id, path="", outstanding=0, status=ScopeStatus.CLOSED)
        one = event.leaves[0] if len(event.leaves) == 1 else None
        yield EndRun(
            run_id=run.id,
            status=RunStatus.SUCCEEDED,
            ended_at=context.now,
            outputs=None if one else values.value(event.leaves),
            outputs_from=one.task_id if one else None,
            message=one.message if one else "",
        )
        return
    assert scope.then is not None
    assert scope.opener is not None
    send = Send(**codec.loads(scope.then))
    inputs = values.continuation(event.outputs, send.inputs, values.branch_values(scope.path, event.leaves))
    if len(inputs) > context.limits.max_message_bytes:
        what = f"max_message_bytes: the results of the Gather for {send.node} are {len(inputs):,} bytes together"
        error = wire.Error(type="LimitExceeded", message=f"{what}; return references instead of data")
        yield MoveScope(run_id=run.id, path=scope.path, outstanding=0, status=ScopeStatus.FAILED)
        encoded = _encode_error(error, send.node, scope.opener)
        yield BranchFailed(run.id, scope.parent, scope.path, scope.opener, encoded)
        return
    task = _send(send, (run.id, scope.opener), paths.then(scope.path), scope.parent, context)
    # The scope that ends and the task that goes on both count one in the parent scope: its counter stays.
    yield MoveScope(run_id=run.id, path=scope.path, outstanding=0, status=ScopeStatus.CLOSED)
    yield AddTask(replace(task, inputs=inputs, inputs_from=None))
    yield CountTasks(run_id=run.id, tasks=run.tasks + 1)


def _settle(
    task: Task,
    result: wire.Result,
    status: TaskStatus,
    context: Context,
    *,
    outputs: bytes | None = None,
    nodes: bytes | None = None,
    leaf_of: str | None = None,
    error: bytes | None = None,
) -> SettleTask:
    return SettleTask(
        run_id=task.run_id,
        task_id=task.id,
        status=status,
        attempt=task.attempt,
        outputs=outputs,
        nodes=nodes,
        leaf_of=leaf_of,
        message=result.message,
        error=error,
        first_started_at=task.first_started_at or result.started_at,
        started_at=result.started_at or task.started_at,
        finished_at=result.finished_at or context.now,
        worker=result.worker or task.worker,
    )


def _error(error: wire.Error | None, task: Task) -> bytes:
    return _encode_error(error or wire.Error(type="Failed"), task.node, task.id)


def _encode_error(error: wire.Error, node: str, task_id: UUID) -> bytes:
    return codec.dumps(error.model_dump(exclude_none=True) | {"node": node, "task_id": task_id})


def _encode_send(send: Send) -> bytes:
    return codec.dumps({"node": send.node, "inputs": send.inputs, "delay": send.delay})


def _returned(result: wire.Result) -> bytes | None:
    return codec.dumps(result.model_dump(include={"nodes"})["nodes"]) if result.nodes else None


def _one_shot_id(run_id: str, derived: UUID) -> UUID:
    """A one-shot script knows its task by the id it was given, which is the run's id too."""
    try:
        return UUID(run_id)
    except ValueError:
        return derived
