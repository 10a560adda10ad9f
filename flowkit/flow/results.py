"""What a result means: the task goes on, comes again, or has failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit.flow import failures, making, overdue, paths, starting, waits
from flowkit.flow.changes import (
    AddScope,
    AddTask,
    AnnounceRun,
    Change,
    Collect,
    Forbid,
    FreeSlot,
    HoldSlot,
    MoveTask,
    Orphan,
    SettleTask,
    Supersede,
    Tell,
)
from flowkit.flow.context import Context
from flowkit.flow.events import BranchFailed, Event, Reported, Started, TaskFailed
from flowkit.flow.leases import process_died
from flowkit.flow.limits import Limits
from flowkit.flow.scopes import branch_failed, count_down, end_failed
from flowkit.flow.state import LIMIT, PAUSED, RETRY, Run, RunStatus, Scope, ScopeStatus, State, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import Gather, Send, Wait, as_send, unwrap

Items = list[Send | Gather | Wait]
MAX_HANDLERS = 5  # in a chain of failures: each wraps the inputs of the one before, and a message nests so deep only


def reported(state: State, event: Reported, context: Context) -> Iterator[Change | Event]:
    """Apply a result when its task is outstanding and its attempt the current one."""
    result = event.result
    run = state.runs.get(result.run_id)
    if run is None:
        yield Orphan(result.run_id)
        return
    task = state.tasks.get((result.run_id, result.task_id))
    if task is not None and event.answers_for is not None and task.node not in event.answers_for:
        yield Forbid(event, task.node)
        return
    reason = _why_superseded(state, run, task, result)
    if task is None or reason is not None:
        yield from _superseded(run, task, result, reason or "unknown task", context)
        return
    match result.status:
        case wire.Status.SUCCEEDED:
            yield from _succeeded(state, run, task, result, context)
        case wire.Status.FAILED if overdue.is_refused_early(task, result, context):
            yield _returned(run, task)
        case wire.Status.FAILED:
            yield _failure(task, result, result.error or wire.Error(type="Failed", message=result.message))
        case wire.Status.RETRY | wire.Status.RETURNED if task.attempt >= context.limits.max_attempts:
            yield _failure(task, result, _limit(f"max_attempts: the task was sent {task.attempt} times"))
        case wire.Status.RETRY:
            yield _retried(task, result, context)
        case wire.Status.RETURNED:
            yield _returned(run, task)
        case wire.Status.STARTED:
            yield from _began(task, result, context)


def _superseded(run: Run, task: Task | None, result: wire.Result, reason: str, context: Context) -> Iterator[Change]:
    yield Supersede(
        run_id=run.id, task_id=result.task_id, attempt=result.attempt, status=result.status, reason=reason,
        at=context.now,
    )  # fmt: skip
    if task is None:
        return
    if task.slot is not None and result.status is not wire.Status.STARTED:
        yield FreeSlot(run.id, task.id, result.attempt)  # it may have been cancelled
    if run.status.ended and task.status in (TaskStatus.SUCCEEDED, TaskStatus.FAILED):
        yield AnnounceRun(run.id)  # it comes again: whoever applied it may have died before telling of the end


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
    elif task.status is TaskStatus.HELD and not _may_be_sent(task, result):
        why = f"the task is held ({task.held_for}), and nobody was sent this attempt"
    return why


def _may_be_sent(task: Task, result: wire.Result) -> bool:
    """Whether a worker may have been sent the current attempt of a held task.

    A pause may hold a task that is on its way. Later such a task may be held for its limit: only the number of the
    attempt tells then that somebody was sent it.
    """
    return task.held_for == PAUSED or (task.held_for == LIMIT and result.attempt is not None)


# It succeeded


def _succeeded(state: State, run: Run, task: Task, result: wire.Result, context: Context) -> Iterator[Change | Event]:
    items = [unwrap(item) for item in result.nodes]
    refused = _refuse(task, items, context.limits)
    if refused is not None:
        yield _failure(task, result, refused)
        return
    added = list(_children(run, task, items, result, context))
    staying = sum(type(item) is not Send or not item.detached for item in items)
    children = [change.task for change in added if type(change) is AddTask]
    exceeded = _exceeded(run, task, len(children), context) if staying else None
    if exceeded is not None:
        error = making.encode_error(exceeded, task.node, task.id)
        yield _settle(task, result, TaskStatus.FAILED, context, error=error)
        yield from end_failed(run, error, context)
        return
    yield _settle(
        task,
        result,
        TaskStatus.SUCCEEDED,
        context,
        outputs=codec.dumps(result.outputs),
        nodes=_encoded(result) if items else None,
        leaf_of=None if staying else task.scope,
    )
    yield from added
    if children:
        yield from making.counted(run, len(children), task.path, context)
    yield from count_down(state.scopes[run.id, task.scope], 1 - staying)
    for change in added:
        if type(change) is AddScope and change.scope.outstanding == 0:
            yield Collect(run.id, change.scope.path)
    if waiting := [child for child in children if child.status is TaskStatus.WAITING]:
        yield from waits.opened(state, waiting)


def _encoded(result: wire.Result) -> bytes:
    plain = set(map(type, result.nodes)) == {str}
    return codec.dumps(result.nodes if plain else result.model_dump(include={"nodes"})["nodes"])


def _children(
    run: Run, task: Task, items: Items, result: wire.Result, context: Context
) -> Iterator[AddScope | AddTask | Started | TaskFailed]:
    depth = making.next_depth(task, context)
    for index, item in enumerate(items):
        place = making.Place(run, task.id, paths.child(task.path, index), task.scope, result.outputs, depth)
        match item:
            case Send(detached=True):
                yield starting.detached(item, result.outputs, place, context)
            case Send():
                yield from making.added(item, place, context)
            case Wait():
                yield AddTask(making.waiting(item, place, context))
            case Gather():
                yield from _gather(item, place, context)


def _gather(gather: Gather, place: making.Place, context: Context) -> Iterator[AddScope | AddTask | TaskFailed]:
    yield AddScope(
        Scope(
            run_id=place.run.id,
            path=place.path,
            parent=place.scope,
            outstanding=len(gather.sends),
            branches=len(gather.sends),
            opener=place.parent,
            then=making.encode_send(as_send(gather.then)),
            return_exceptions=gather.return_exceptions,
            max_concurrency=gather.max_concurrency,
            due=None if gather.timeout is None else context.now + gather.timeout,
        )
    )
    window = gather.max_concurrency
    place = place._replace(depth=place.depth + 1)  # a Gather is a step too
    for number, send in enumerate(gather.sends):
        path = paths.child(place.path, number)
        if window is None:
            yield from making.added(as_send(send), place._replace(path=path, scope=place.path), context)
            continue
        # Each branch is a scope of its own: its end, and not only its first task's, makes room for the next one.
        begins = place._replace(path=path, scope=path)
        opener = begins.task_id(context.secret)
        yield AddScope(Scope(run_id=place.run.id, path=path, parent=place.path, outstanding=1, opener=opener))
        yield from making.added(as_send(send), begins, context, branch_held=number >= window)


def _refuse(task: Task, items: Items, limits: Limits) -> wire.Error | None:
    """What makes a result a failure of its task, whoever sent it."""
    detached = 0
    for item in items:
        if type(item) is Send:
            detached += item.detached
        elif isinstance(item, Gather):
            if len(item.sends) > limits.max_gather:
                count = f"a Gather of {len(item.sends):,} sends is over max_gather ({limits.max_gather:,})"
                return _limit(f"{count}; split it, or raise the setting")
            if item.max_concurrency is not None and any(as_send(send).delay for send in item.sends):
                what = f"node {task.node}: a Send with a delay cannot stand in a Gather with max_concurrency"
                return wire.Error(type="InvalidGather", message=what)
    if detached > limits.max_gather:
        # Runs of their own, which no limit of this one counts: all of them begin in one transaction.
        return _limit(f"{detached:,} detached sends are over max_gather ({limits.max_gather:,}); begin them in steps")
    return None


def _exceeded(run: Run, task: Task, created: int, context: Context) -> wire.Error | None:
    """What stops the whole run: a workflow that runs away, or explodes."""
    limits = context.limits
    if run.tasks + created > limits.max_tasks:
        would_have = f"the run would have {run.tasks + created:,} tasks, the limit is {limits.max_tasks:,}"
        loop = ". A loop keeps each task that ends it in part: let it begin runs of their own (detached=True)"
        return _limit(f"max_tasks: {would_have}{loop if paths.is_folded(task.path) else ''}")
    depth = making.next_depth(task, context)
    if depth + 1 > limits.max_depth:
        stands = f"node {task.node} stands {depth - 1:,.0f} steps deep and goes on"
        why = f"the limit is {limits.max_depth:,}, and {limits.max_step_rate:g} more for each second"
        return _limit(f"max_depth: {stands}; {why}. Is this an endless loop? One that may go on sends with a delay")
    if len(task.path) > paths.MOST:
        return _limit(f"max_depth: node {task.node} stands in too many Gathers, one in the other, and goes on")
    return None


# It comes again


def _retried(task: Task, result: wire.Result, context: Context) -> MoveTask:
    return MoveTask(
        run_id=task.run_id,
        task_id=task.id,
        status=TaskStatus.HELD,
        attempt=task.attempt + 1,
        tries=task.tries + 1,
        held_for=RETRY,
        due=context.now + (result.retry_in or 0),
        error=making.encode_error(result.error or wire.Error(type="Failed"), task.node, task.id),
        first_started_at=task.first_started_at or result.started_at,
        worker=result.worker,
    )


def _returned(run: Run, task: Task) -> MoveTask:
    held_for = PAUSED if run.status is RunStatus.PAUSED else LIMIT if task.held_for == LIMIT else None
    return MoveTask(
        run_id=task.run_id,
        task_id=task.id,
        status=TaskStatus.QUEUED if held_for is None else TaskStatus.HELD,
        held_for=held_for,
        attempt=task.attempt + 1,  # fences off whoever gave it back
        tries=task.tries,
        first_started_at=task.first_started_at,
    )


def _began(task: Task, result: wire.Result, context: Context) -> Iterator[Change | Event]:
    """It begins alone, for it was delivered before: whoever began it and never came back has died over it."""
    started = result.started_at or context.now
    again = task.started_at is not None and (task.worker, task.started_at) != (result.worker, started)
    deaths = task.deaths + again
    if deaths >= context.limits.max_deaths:
        yield _failure(task, result, process_died(deaths, task.worker, context.limits))
        if task.slot is not None:
            yield HoldSlot(task.run_id, task.id, task.attempt, task.slot, context.now)
        yield Tell(wire.Control(kind="cancel", run_id=task.run_id, task_id=task.id, attempt=task.attempt))
        return
    yield MoveTask(
        run_id=task.run_id,
        task_id=task.id,
        status=TaskStatus.RUNNING,
        attempt=task.attempt,
        tries=task.tries,
        sent_at=task.sent_at or context.now,
        first_started_at=task.first_started_at or started,
        started_at=started,
        worker=result.worker,
        deaths=deaths,
    )


# It failed


def failed(state: State, event: TaskFailed, context: Context) -> Iterator[Change | Event]:
    """A task failed for good: its node's ``on_error`` goes on in its place, or its scope has failed."""
    run, task = state.runs[event.run_id], state.tasks[event.run_id, event.task_id]
    scope = state.scopes[run.id, task.scope]
    if run.status.ended or not task.status.outstanding or scope.status is not ScopeStatus.OPEN:
        return  # the same failure twice in a batch, or overtaken by another one
    cause = _handled(state, task)
    error = making.encode_error(event.error, task.node, task.id, cause)
    handler = _handler(state, task, cause)
    goes_on = handler is not None and run.tasks < context.limits.max_tasks
    nodes = codec.dumps([handler]) if goes_on else None  # whoever reads the row knows that this failure was handled
    yield _settle(task, event.result, TaskStatus.FAILED, context, nodes=nodes, error=error)
    if handler is not None and goes_on:
        inputs = {"error": codec.embed(error), "inputs": codec.embed(state.payloads[run.id, task.id])}
        depth = making.next_depth(task, context)
        place = making.Place(run, task.id, paths.child(task.path, 0), task.scope, depth=depth)
        # The task that failed and the one in its place both count one in the scope: its counter stays.
        yield from making.added(Send(handler), place, context, inputs=codec.dumps(inputs), handler=True)
        yield from making.counted(run, 1, task.path, context)
    else:
        yield from branch_failed(state, BranchFailed(run.id, task.scope, task.path, task.id, error), context)


def _handled(state: State, task: Task) -> Mapping[str, Any] | None:
    """The failure that a handler was given; None for any other task."""
    if not task.handler:
        return None
    cause = codec.loads(state.payloads[task.run_id, task.id]).get("error")
    return cause if isinstance(cause, dict) else None  # a rerun may have given it other inputs


def _handler(state: State, task: Task, cause: Mapping[str, Any] | None) -> str | None:
    """The node that handles the failure of a task.

    A handler that fails is handled in its turn. Each node handles once in a chain of failures, and ``MAX_HANDLERS``
    nodes at most do, so that the chain ends.
    """
    handler = state.on_error.get(task.node)
    if handler is None or not task.handler:
        return handler
    # The oldest failure of the chain is that of the task that the first handler stands in for.
    handled = [task.node, *(error.get("node") for error in failures.chain(cause or {}))]
    handled = handled[: max(1, len(handled) - 1)]
    return None if handler in handled or len(handled) >= MAX_HANDLERS else handler


def _failure(task: Task, result: wire.Result, error: wire.Error) -> TaskFailed:
    return TaskFailed(task.run_id, task.id, result, error)


def _limit(message: str) -> wire.Error:
    return wire.Error(type="LimitExceeded", message=message)


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
