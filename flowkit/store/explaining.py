"""A task's row as ``flow.explain`` looks at it."""

from __future__ import annotations

import json

from flowkit.flow import failures
from flowkit.flow.explain import Stuck
from flowkit.flow.state import TaskStatus
from flowkit.store.views import TaskRow


def stuck(task: TaskRow, *, paused: bool, inputs: bytes | None = None) -> Stuck:
    """An outstanding task.

    Args:
        task: its row.
        paused: so is its run.
        inputs: of a task that handles a failure (``on_error``).
    """
    return Stuck(
        run_id=task.run_id,
        node=task.node,
        status=TaskStatus(task.status),
        held_for=task.held_for,
        due=task.due,
        error=None if task.error is None else on_one_line(task.error),
        sent_at=task.sent_at,
        started_at=task.started_at,
        worker=task.worker,
        signal=task.signal,
        leased_until=task.leased_until,
        slot=task.slot,
        paused=paused,
        handles=_handled(inputs) if task.handler and inputs is not None else None,
    )


def _handled(inputs: bytes) -> str | None:
    """The failure that a handler was given, with its node."""
    error = json.loads(inputs).get("error")
    return f"{error.get('node', 'a task')}: {failures.describe(error)}" if isinstance(error, dict) else None


def on_one_line(error: bytes) -> str:
    """An error as it is kept, such as ``OSError: no route to host``, with the errors that it comes from."""
    return failures.describe(json.loads(error))
