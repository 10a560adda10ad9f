"""What becomes of a task that no worker took in time.

A worker that takes a task too late refuses it, by its own clock. Whether it was too late is judged here, by the clock
that wrote when the task was sent: a worker whose clock is ahead would refuse what has just been sent.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.flow.changes import Change, Tell
from flowkit.flow.context import Context
from flowkit.flow.events import Event, QueueExpired, TaskFailed
from flowkit.flow.state import RunStatus, State, Task, TaskStatus
from flowkit.wire import messages as wire

KIND = "QueueTimeout"  # of the error, whoever fails the task
MARKED_AFTER = 2.0  # seconds after a task was sent at which its row says so, at the latest


def carries_timeout(attempt: int, tries: int | None) -> bool:
    """Whether the message of a task says until when it is to be taken.

    That of one that came back unfinished does not: a worker that refuses it wrongly would do so at each attempt.
    """
    return attempt == tries


def is_refused_early(task: Task, result: wire.Result, context: Context) -> bool:
    """Whether a worker has refused a task as too late that it was given in time."""
    timeout, error = context.queue_timeouts.get(task.node), result.error
    if timeout is None or error is None or error.type != KIND or error.traceback:  # an author's own has a traceback
        return False
    waited = 0 if task.sent_at is None else min(context.now - task.sent_at, context.steady_for)
    return carries_timeout(task.attempt, task.tries) and waited + MARKED_AFTER < timeout


def expired(state: State, event: QueueExpired, context: Context) -> Iterator[Change | Event]:
    """It fails as if a worker had said so, unless something has happened to it since it was found."""
    run, task = state.runs[event.run_id], state.tasks.get((event.run_id, event.task_id))
    if run.status is not RunStatus.RUNNING or task is None or task.leased_until is not None:
        return
    if (task.status, task.attempt, task.sent_at) != (TaskStatus.QUEUED, event.attempt, event.sent_at):
        return
    why = f"no worker took it within {event.timeout:g} s (queue_timeout of node {task.node!r})"
    error = wire.Error(type=KIND, message=why)
    result = wire.Result(
        task_id=task.id,
        run_id=run.id,
        attempt=task.attempt,
        status=wire.Status.FAILED,
        message=f"{error.type}: {error.message}",
        finished_at=context.now,
    )
    if not carries_timeout(task.attempt, task.tries):
        # Nothing in its message keeps a worker from executing it later, beside what its slot lets out in its place.
        yield Tell(wire.Control(kind="cancel", run_id=run.id, task_id=task.id, attempt=task.attempt))
    yield TaskFailed(run.id, task.id, result, error)
