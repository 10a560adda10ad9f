"""Structured concurrency: what happens to a scope when something in it ends, fails, or takes too long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowkit.flow import failures, limiting, making, paths, slots, values
from flowkit.flow.changes import (
    CancelBelow,
    Change,
    Collect,
    EndRun,
    FailOutstanding,
    LiftLeaves,
    MarkLeaf,
    MoveScope,
    MoveTask,
    Tell,
)
from flowkit.flow.context import Context
from flowkit.flow.events import (
    BranchEnded,
    BranchFailed,
    BranchReleased,
    Collected,
    Drained,
    Event,
    RunExpired,
    ScopeExpired,
    TaskFailed,
)
from flowkit.flow.state import LIMIT, PAUSED, WINDOW, Run, RunStatus, Scope, ScopeStatus, State, Task, TaskStatus
from flowkit.wire import codec
from flowkit.wire import messages as wire


def count_down(scope: Scope, by: int) -> Iterator[Change | Event]:
    """Take ``by`` from the counter of a scope; one with nothing outstanding is collected, or is a branch that ends."""
    if by == 0 or scope.status is not ScopeStatus.OPEN:
        return
    left = max(scope.outstanding - by, 0)
    if left == 0 and _is_branch(scope):
        yield from _end_branch(scope)
        return
    yield MoveScope(run_id=scope.run_id, path=scope.path, outstanding=left, status=scope.status)
    if left == 0:
        yield Collect(scope.run_id, scope.path)


def drained(state: State, event: Drained) -> Iterator[Change | Event]:
    """What should have happened when the last thing in the scope ended, unless something is outstanding again."""
    run, scope = state.runs[event.run_id], state.scopes[event.run_id, event.scope]
    if run.status.ended or scope.status is not ScopeStatus.OPEN or scope.outstanding:
        return
    if _is_branch(scope):
        yield from _end_branch(scope)
    else:
        yield Collect(scope.run_id, scope.path)


def branch_ended(state: State, event: BranchEnded, context: Context) -> Iterator[Change | Event]:
    """A branch under max_concurrency has its value: the next one may begin."""
    scope = state.scopes[event.run_id, event.scope]
    if scope.status is ScopeStatus.OPEN:
        yield from _make_room(scope, context)
        yield from count_down(scope, 1)


def branch_released(state: State, event: BranchReleased, context: Context) -> Iterator[Change | Event]:
    """The first task of a branch is sent, unless the run was paused or something ended meanwhile."""
    run, task = state.runs[event.run_id], state.tasks.get((event.run_id, event.task_id))
    if task is None or task.status is not TaskStatus.HELD or task.held_for != WINDOW:
        return
    limit = context.node_limits.get(task.node)
    missing = None if limit is None or task.slot is not None else _missing_key(state, task, limit)
    limited = task.slot is not None or missing is not None
    held_for = PAUSED if run.status is RunStatus.PAUSED and missing is None else LIMIT if limited else None
    yield MoveTask(
        run_id=run.id,
        task_id=task.id,
        status=TaskStatus.QUEUED if held_for is None else TaskStatus.HELD,
        held_for=held_for,
        attempt=task.attempt,
        tries=task.tries,
    )
    if missing is not None:
        yield missing


def _missing_key(state: State, task: Task, limit: slots.NodeLimit) -> TaskFailed | None:
    """The failure of a task that has no slot, when that is because its inputs do not say which."""
    try:
        slots.slot(task.node, limit, lambda: codec.loads(state.payloads[task.run_id, task.id]))
    except slots.MissingKey as error:
        return limiting.missing_key(task.run_id, task.id, task.attempt, error)
    return None


def _is_branch(scope: Scope) -> bool:
    """Whether it is a branch of a Gather that is a scope of its own (``max_concurrency``)."""
    return scope.then is None and scope.parent is not None


def _end_branch(scope: Scope) -> Iterator[Change | Event]:
    assert scope.parent is not None
    yield MoveScope(run_id=scope.run_id, path=scope.path, outstanding=0, status=ScopeStatus.CLOSED)
    yield LiftLeaves(scope.run_id, scope.path, scope.parent)
    yield BranchEnded(scope.run_id, scope.parent)


def _make_room(scope: Scope, context: Context) -> Iterator[Event]:
    """One branch of a window ends now: as many have begun as the window is wide, and one for each that ended before."""
    if scope.max_concurrency is None or scope.opener is None:
        return
    following = scope.max_concurrency + scope.branches - scope.outstanding
    if following < scope.branches:
        path = paths.child(scope.path, following)
        yield BranchReleased(scope.run_id, paths.task_id(context.secret, scope.opener, path))


def collected(state: State, event: Collected, context: Context) -> Iterator[Change | Event]:
    """The values of a drained scope are there: its continuation fires, or the run has succeeded."""
    run, scope = state.runs[event.run_id], state.scopes[event.run_id, event.scope]
    if run.status.ended or scope.status is not ScopeStatus.OPEN:
        return
    if scope.parent is None:
        yield from _succeed(run, event, context)
        return
    if scope.then is None:
        yield from _end_branch(scope)
        return
    assert scope.opener is not None
    send = making.decode_send(scope.then)
    inputs = values.continuation(event.outputs, send.inputs, values.branch_values(scope.path, event.leaves))
    if len(inputs) > context.limits.max_message_bytes:
        what = f"max_message_bytes: the results of the Gather for {send.node} are {len(inputs):,} bytes together"
        error = wire.Error(type="LimitExceeded", message=f"{what}; return references instead of data")
        yield from _fail(scope, making.encode_error(error, send.node, scope.opener), context)
        return
    # The scope that ends and the task that goes on both count one in the parent scope: its counter stays.
    depth = paths.depth(scope.path) if event.depth is None else event.depth + 1  # a Gather is a step too
    depth = making.deeper(depth, context.now if event.opened_at is None else event.opened_at, context)
    place = making.Place(run, scope.opener, paths.then(scope.path), scope.parent, depth=depth)
    yield MoveScope(run_id=run.id, path=scope.path, outstanding=0, status=ScopeStatus.CLOSED)
    yield from making.added(send, place, context, inputs=inputs)
    yield from making.counted(run, 1, scope.path, context)


def _succeed(run: Run, event: Collected, context: Context) -> Iterator[Change]:
    one = event.leaves[0] if len(event.leaves) == 1 else None
    yield MoveScope(run_id=run.id, path="", outstanding=0, status=ScopeStatus.CLOSED)
    yield EndRun(
        run_id=run.id,
        status=RunStatus.SUCCEEDED,
        ended_at=context.now,
        outputs=None if one else values.value(event.leaves),
        outputs_from=one.task_id if one else None,
        message=one.message if one else "",
    )


def branch_failed(state: State, failure: BranchFailed, context: Context) -> Iterator[Change | Event]:
    """A task or child scope failed for good: so does its scope, unless the scope returns exceptions."""
    run, scope = state.runs[failure.run_id], state.scopes[failure.run_id, failure.scope]
    if run.status.ended or scope.status is not ScopeStatus.OPEN:
        return
    if scope.parent is None:
        yield from end_failed(run, failure.error, context)
    elif scope.return_exceptions:
        branch = paths.child(scope.path, paths.branch(scope.path, failure.path))
        yield MarkLeaf(run.id, failure.task_id, scope.path, failure.error)
        if scope.outstanding > 1:
            yield CancelBelow(run.id, branch, scope.path, context.now)
        yield from _make_room(scope, context)
        yield from count_down(scope, 1)
    else:
        yield from _fail(scope, failure.error, context, failure)


def expired(state: State, event: ScopeExpired, context: Context) -> Iterator[Change | Event]:
    """A Gather's timeout counts as failure of the unfinished branches."""
    run, scope = state.runs[event.run_id], state.scopes[event.run_id, event.scope]
    if run.status.ended or scope.status is not ScopeStatus.OPEN or scope.due is None:
        return
    assert scope.then is not None
    assert scope.opener is not None
    then = making.decode_send(scope.then).node
    error = wire.Error(type="TimeoutError", message=f"the Gather for {then} took longer than its timeout")
    encoded = making.encode_error(error, then, scope.opener)
    if scope.return_exceptions:
        yield FailOutstanding(run.id, scope.path, encoded, context.now)
    else:
        yield from _fail(scope, encoded, context)


def run_expired(state: State, event: RunExpired, context: Context) -> Iterator[Change]:
    """A run that passed its deadline fails."""
    run = state.runs[event.run_id]
    if run.status.ended or run.deadline is None:
        return
    seconds = run.deadline - run.started_at
    error: dict[str, Any] = {
        "type": "DeadlineExceeded",
        "message": f"the run did not end within {seconds:g} s",
        "node": run.node,
    }
    cause = None if event.handling is None else codec.loads(event.handling).get("error")
    if isinstance(cause, dict):
        error["cause"] = cause
    yield from end_failed(run, codec.dumps(error), context)


def end_failed(run: Run, error: bytes, context: Context) -> Iterator[Change]:
    """The run failed: everything outstanding in it is cancelled."""
    told = codec.loads(error)
    message = f"{told['node']}: {failures.describe(told)}"
    yield EndRun(run_id=run.id, status=RunStatus.FAILED, ended_at=context.now, message=message[:1000], error=error)
    yield CancelBelow(run.id, "", None, context.now)
    yield Tell(wire.Control(kind="cancel", run_id=run.id))


def _fail(
    scope: Scope, error: bytes, context: Context, failure: BranchFailed | None = None
) -> Iterator[Change | Event]:
    """The scope fails, with everything in it, and so does the branch of the parent that it stands in."""
    assert scope.parent is not None
    assert scope.opener is not None
    culprit = scope.opener if failure is None else failure.task_id
    yield MoveScope(run_id=scope.run_id, path=scope.path, outstanding=0, status=ScopeStatus.FAILED)
    yield CancelBelow(scope.run_id, scope.path, None, context.now)
    yield BranchFailed(scope.run_id, scope.parent, scope.path, culprit, error)
