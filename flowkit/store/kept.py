"""Rows of runs under way, as the last transactions left them: what comes next need not be loaded again.

The database stays the truth. What is kept counts only while nobody else has written to it, which SQLite can tell and
PostgreSQL cannot: there it lasts as long as its transaction, in which the runs are locked. And it counts only after a
transaction that was committed. Whatever changes rows of runs past ``write`` forgets them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from uuid import UUID

from flowkit.flow.state import Run, Scope, ScopeStatus, State, Task, TaskStatus
from flowkit.store.protocol import TaskKey

ROOM = 20_000  # rows
LARGE = 1_000  # bytes of what an author wrote, from which on a row is not kept
SENT = (TaskStatus.QUEUED, TaskStatus.RUNNING)  # as `rows.IS_SENT` has it


@dataclass(slots=True)
class RunRows:
    """A run under way, those of its tasks that are outstanding, and its open scopes: all of them or some."""

    run: Run
    tasks: dict[UUID, Task] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)

    def __len__(self) -> int:
        return 1 + len(self.tasks) + len(self.scopes)


class Kept:
    """What one connection remembers.

    Args:
        room: rows that it remembers at most; those of the runs that were touched longest ago leave first.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._runs: OrderedDict[str, RunRows] = OrderedDict()
        self._rows = 0
        self._committed = True

    def begin(self, *, alone: bool) -> None:
        """A transaction begins; ``alone``: nobody else has written since the last one."""
        if not (alone and self._committed):
            self.forget_all()
        self._committed = False

    def commit(self) -> None:
        """It was committed."""
        self._committed = True

    def get(self, run_id: str) -> RunRows | None:
        """The rows of a run that are remembered."""
        return self._runs.get(run_id)

    def run(self, run_id: str) -> Run | None:
        """A run. Where others write too, it was locked when it began to count."""
        rows = self._runs.get(run_id)
        return None if rows is None else rows.run

    def task(self, key: TaskKey) -> Task | None:
        """A task that is outstanding."""
        rows = self._runs.get(key[0])
        return None if rows is None else rows.tasks.get(key[1])

    def scope(self, key: tuple[str, str]) -> Scope | None:
        """An open scope, by its run and its path."""
        rows = self._runs.get(key[0])
        return None if rows is None else rows.scopes.get(key[1])

    def take(self, state: State) -> None:
        """Remember these rows: they are what is being written, or what was loaded and not changed."""
        known = self._known(state)
        self._rows -= sum(map(len, known.values()))
        for (run_id, task_id), task in state.tasks.items():
            if (rows := known.get(run_id)) is None:
                continue
            if task.status.outstanding and _small(task.wait):  # inputs are no part of what is loaded
                rows.tasks[task_id] = task if task.inputs is None else task._replace(inputs=None)
            else:
                rows.tasks.pop(task_id, None)
        for (run_id, path), scope in state.scopes.items():
            if (rows := known.get(run_id)) is None:
                continue
            if scope.status is ScopeStatus.OPEN and _small(scope.then):
                rows.scopes[path] = scope
            else:
                rows.scopes.pop(path, None)
        self._rows += sum(map(len, known.values()))
        while self._rows > self._room:
            _, left = self._runs.popitem(last=False)
            self._rows -= len(left)

    def _known(self, state: State) -> dict[str, RunRows]:
        """What is remembered of the runs in ``state`` that are under way, which are now those touched last."""
        known: dict[str, RunRows] = {}
        for run_id, run in state.runs.items():
            if run.status.ended or not _small(run.tags):
                self.forget(run_id)
            elif (rows := self._runs.get(run_id)) is not None:
                rows.run = run
                self._runs.move_to_end(run_id)
                known[run_id] = rows
            else:
                known[run_id] = self._runs[run_id] = RunRows(run)
                self._rows += 1
        return known

    def sent(self, run_id: str, task_id: UUID, attempt: int, at: float) -> None:
        """A task was marked as sent, if it is still at this attempt and on its way."""
        task = self.task((run_id, task_id))
        if task is not None and task.attempt == attempt and task.status in SENT:
            self._runs[run_id].tasks[task_id] = task._replace(sent_at=at)

    def forget(self, *runs: str) -> None:
        """Rows of these runs were changed by other ways."""
        for run_id in runs:
            rows = self._runs.pop(run_id, None)
            if rows is not None:
                self._rows -= len(rows)

    def forget_all(self) -> None:
        """So were any."""
        self._runs.clear()
        self._rows = 0


def _small(value: bytes | None) -> bool:
    return value is None or len(value) < LARGE
