"""A run of a simulation, as a test holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from flowkit.client import Run
from flowkit.errors import RunFailed
from flowkit.flow import failures
from flowkit.flow.explain import Around, explain
from flowkit.flow.state import OUTSTANDING, RunStatus
from flowkit.store.explaining import stuck
from flowkit.store.views import Queries, RunRow, TaskRow
from flowkit.wire import codec
from flowkit.wire import messages as wire

T = TypeVar("T")


class World(Protocol):
    """What a run needs of its simulation."""

    def play(self, scene: Coroutine[Any, Any, T]) -> T:
        """Let this happen, and the rest with it."""

    def query(self, function: Callable[[Queries], T]) -> T:
        """Ask the store."""

    def wait_for(self, done: Callable[[], bool]) -> bool:
        """Let happen what happens, and time pass, until ``done``; False when nothing is left to happen before."""

    def wall(self) -> float:
        """What time it is, Unix seconds."""


class SimulatedRun:
    """A run that was started in a simulation. Nothing of it happens while the test does not wait for something."""

    def __init__(self, world: World, run: Run) -> None:
        self._world, self._run = world, run
        self.id = run.id

    def __repr__(self) -> str:
        return f"<SimulatedRun {self.id} {self.status}>"

    @property
    def status(self) -> str:
        """``running``, ``paused``, ``succeeded``, ``failed`` or ``cancelled``; ``unread`` before its start was read."""
        row = self._row()
        return "unread" if row is None else row.status

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        row = self._row()
        return row is not None and row.ended_at is not None

    @property
    def tasks(self) -> list[TaskRow]:
        """Its tasks as the store has them, in the order of their paths."""
        return self._world.query(lambda queries: queries.tasks(self.id, payloads=True))

    def outputs(self) -> dict[str, Any]:
        """Its outputs, once it has succeeded; as much time passes as that takes.

        Raises:
            RunFailed: it failed or was cancelled.
            AssertionError: it never ends: nothing is left to happen; the message says what it waits for.
        """
        row = self.end()
        if row.status != "succeeded":
            raise RunFailed(self.id, row.status, _why(row))
        outputs: dict[str, Any] = codec.loads(row.outputs or b"{}")
        return outputs

    def end(self) -> RunRow:
        """What the store has of it, once it has ended, however that is.

        Raises:
            AssertionError: it never ends, as in ``outputs``.
        """
        if not self._world.wait_for(lambda: self.ended):
            waits = "".join(f"\n  {line}" for line in self.explain()) or " Its start was never read."
            raise AssertionError(f"run {self.id} has not ended, and nothing is left to happen:{waits}")
        row = self._row()
        assert row is not None, "it has just been seen"
        return row

    def explain(self) -> list[str]:
        """What each of its tasks that are not done waits for."""
        self._world.play(asyncio.sleep(2))  # that a task was sent is written down a second later
        now, paused = self._world.wall(), self.status == RunStatus.PAUSED
        return [
            f"{task.path} {task.node}: {explain(stuck(task, paused=paused, inputs=task.inputs), Around(), now).text}"
            for task in self.tasks
            if task.status in OUTSTANDING
        ]

    def logs(self) -> list[wire.Log]:
        """What its nodes have logged, as the archive has it."""
        self._world.play(asyncio.sleep(0.5))  # lines travel together, a little later than anything else
        return self._world.query(lambda queries: queries.logs(run_id=self.id))

    def signal(self, name: str, input: Mapping[str, Any] | None = None) -> None:  # noqa: A002 - the field's name
        """Send it a signal."""
        self._world.play(self._run.signal(name, input))

    def cancel(self, *, grace: float = 0) -> None:
        """Ask for it to be cancelled."""
        self._world.play(self._run.cancel(grace=grace))

    def pause(self) -> None:
        """Ask that nothing further of it is begun."""
        self._world.play(self._run.pause())

    def resume(self) -> None:
        """Ask for it to go on."""
        self._world.play(self._run.resume())

    def retry(self) -> None:
        """Ask for it to go on from what failed."""
        self._world.play(self._run.retry())

    def _row(self) -> RunRow | None:
        return self._world.query(lambda queries: queries.run(self.id))


def _why(row: RunRow) -> str:
    if row.error is None:
        return row.message
    return failures.describe(codec.loads(row.error))
