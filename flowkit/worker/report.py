"""What a worker says of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flowkit.errors import TooLarge
from flowkit.wire import codec
from flowkit.wire.items import Item
from flowkit.wire.messages import VERSION, Error, Object, Result, Status, Task, decode, rfc3339

_MESSAGE = 1_000  # characters of the one-line message; the error has all of it


class Report(NamedTuple):
    """A result as its bytes, encoded once: whatever the author does to his objects later changes nothing.

    It is written field by field, without a ``Result`` to begin with: all that an author gave was checked where it came
    from, and the model and its dump cost as much as all else that a worker does for a small task.

    Args:
        task: what it is about.
        status: what became of it.
        body: the result message.
    """

    task: Task
    status: Status
    body: bytes

    @classmethod
    def of(
        cls,
        task: Task,
        status: Status,
        *,
        worker: str,
        started_at: float | None = None,
        finished_at: float | None = None,
        nodes: Sequence[Item] = (),
        outputs: Object | None = None,
        message: str = "",
        error: Error | None = None,
        retry_in: float | None = None,
    ) -> Report:
        """A report on ``task``; what is left out is not said. Times are Unix seconds."""
        said: dict[str, Any] = {
            "v": VERSION,
            "task_id": task.task_id,
            "run_id": task.run_id,
            "node": task.node,
            "attempt": task.attempt,
            "status": status,
            "worker": worker,
        }
        if started_at is not None:
            said["started_at"] = rfc3339(started_at)
        if finished_at is not None:
            said["finished_at"] = rfc3339(finished_at)
        if nodes:
            said["nodes"] = [item if isinstance(item, str) else item.model_dump(exclude_unset=True) for item in nodes]
        if outputs:
            said["outputs"] = outputs
        if message:
            said["message"] = message
        if error is not None:
            said["error"] = error.model_dump(exclude_unset=True)
        if retry_in is not None:
            said["retry_in"] = retry_in
        return cls(task, status, codec.dumps(said))

    @property
    def result(self) -> Result:
        """What it says, read from its bytes."""
        return decode(Result, self.body)

    def within(self, limit: int) -> Report:
        """Itself; ``TooLarge`` when it is over ``limit`` bytes."""
        if len(self.body) > limit:
            raise TooLarge(len(self.body), limit)
        return self


def said_by(error: Error) -> str:
    """An error on one line, for the result's message."""
    return f"{error.type}: {error.message}"[:_MESSAGE] if error.message else error.type


def returned(task: Task, *, worker: str) -> Report:
    """It goes back unfinished; that uses up no try."""
    return Report.of(task, Status.RETURNED, worker=worker)


def started(task: Task, *, worker: str, now: float) -> Report:
    """It is about to run, alone: if nothing more is heard of this attempt, the task has killed its process."""
    return Report.of(task, Status.STARTED, worker=worker, started_at=now)


def cancelled(task: Task, *, worker: str, now: float) -> Report:
    """Its main cancelled the asyncio task it runs in."""
    return _failed(task, Error(type="CancelledError", message="main cancelled itself"), worker, now)


def refused(task: Task, error: TooLarge, *, worker: str, now: float) -> Report:
    """Its result is larger than the broker takes."""
    return _failed(task, Error(type="TooLarge", message=str(error)), worker, now)


def _failed(task: Task, error: Error, worker: str, now: float) -> Report:
    return Report.of(task, Status.FAILED, worker=worker, finished_at=now, error=error, message=said_by(error))
