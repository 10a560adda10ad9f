"""What becomes of a task that no worker took in time."""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.flow.context import Context
from flowkit.flow.events import Event, QueueExpired, TaskFailed
from flowkit.flow.state import RunStatus, State, TaskStatus
from flowkit.wire import messages as wire


def expired(state: State, event: QueueExpired, context: Context) -> Iterator[Event]:
    """It fails as if a worker had said so, unless something has happened to it since it was found."""
    run, task = state.runs[event.run_id], state.tasks.get((event.run_id, event.task_id))
    if run.status is not RunStatus.RUNNING or task is None or task.leased_until is not None:
        return
    if (task.status, task.attempt, task.sent_at) != (TaskStatus.QUEUED, event.attempt, event.sent_at):
        return
    why = f"no worker took it within {event.timeout:g} s (queue_timeout of node {task.node!r})"
    error = wire.Error(type="QueueTimeout", message=why)
    result = wire.Result(
        task_id=task.id,
        run_id=run.id,
        attempt=task.attempt,
        status=wire.Status.FAILED,
        message=f"{error.type}: {error.message}",
        finished_at=context.now,
    )
    yield TaskFailed(run.id, task.id, result, error)
