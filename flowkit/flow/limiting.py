"""What limits have to do with changes: the slots that these touch, and tasks that no slot can be told for.

Apart from ``slots``, for whoever only explains a limit needs neither changes nor events.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from flowkit.flow import slots
from flowkit.flow.changes import AddTask, Change, FreeSlot, MoveTask, SettleTask
from flowkit.flow.events import TaskFailed
from flowkit.flow.state import LIMIT, State, TaskStatus
from flowkit.wire import bounds
from flowkit.wire import messages as wire


def touched(state: State, changes: Iterable[Change]) -> set[str]:
    """Slots in which a task is held by these changes, or makes room; ``state`` is what they led to."""
    if all(task.slot is None for task in state.tasks.values()):
        return set()  # nearly always
    names: set[str | None] = set()
    for change in changes:
        match change:
            case AddTask(task) if task.held_for == LIMIT:
                names.add(task.slot)
            case SettleTask() | MoveTask(status=TaskStatus.HELD) | FreeSlot():
                names.add(state.tasks[change.run_id, change.task_id].slot)
    return {name for name in names if name is not None}


def missing_key(run_id: str, task_id: UUID, attempt: int, error: slots.MissingKey) -> TaskFailed:
    """The failure of a task that cannot be counted: nobody would know how many of its kind are out."""
    problem = wire.Error(type="MissingKey", message=bounds.cut(str(error), 2_000))  # it names keys of others' inputs
    result = wire.Result(
        task_id=task_id, run_id=run_id, attempt=attempt, status=wire.Status.FAILED,
        message=f"{problem.type}: {problem.message}",
    )  # fmt: skip
    return TaskFailed(run_id, task_id, result, problem)
