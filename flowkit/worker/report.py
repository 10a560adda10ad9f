"""What a worker says of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowkit.errors import TooLarge
from flowkit.wire.messages import Error, Result, Status, Task

_MESSAGE = 1_000  # characters of the one-line message; the error has all of it


@dataclass(frozen=True, slots=True)
class Report:
    """A result and its bytes, encoded once: whatever the author does to his objects later changes nothing."""

    result: Result
    body: bytes

    @classmethod
    def of(cls, task: Task, status: Status, **fields: Any) -> Report:
        """A report on ``task``; ``fields`` are those of ``Result``."""
        result = Result(
            task_id=task.task_id, run_id=task.run_id, node=task.node, attempt=task.attempt, status=status, **fields
        )
        return cls(result, result.encode())

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
