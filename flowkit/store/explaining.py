"""A task's row as ``flow.explain`` looks at it."""

from __future__ import annotations

import json

from flowkit.flow.explain import Stuck
from flowkit.flow.state import TaskStatus
from flowkit.store.views import TaskRow


def stuck(task: TaskRow, *, paused: bool) -> Stuck:
    """An outstanding task.

    Args:
        task: its row.
        paused: so is its run.
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
    )


def on_one_line(error: bytes) -> str:
    """An error as it is kept, such as ``OSError: no route to host``."""
    told = json.loads(error)
    return " ".join(f"{told.get('type', 'error')}: {told.get('message', '')}".split())
