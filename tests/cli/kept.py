"""A store as coordinators leave it, without one: for verbs that look into it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from flowkit.coordinator.commit import commit
from flowkit.flow.advance import advance
from flowkit.flow.changes import EndRun, MoveRun, MoveTask
from flowkit.flow.context import Context
from flowkit.flow.events import Event, Reported, Started
from flowkit.flow.limits import Limits
from flowkit.flow.state import RunStatus, State, TaskStatus
from flowkit.store import open_store
from flowkit.store.protocol import DeadLetter, Transaction
from flowkit.wire import messages as wire

URL = "sqlite:///.flowkit/flowkit.db"  # the default, in the folder of the test


def transact(work: Callable[[Transaction], Any]) -> Any:
    """Run ``work`` in one transaction."""

    async def run() -> Any:
        store = await open_store(URL)
        try:
            return await store.transact(work)
        finally:
            await store.close()

    return asyncio.run(run())


def begin(
    run_id: str, node: str = "add", *, tags: dict[str, str] | None = None, at: float | None = None, **task: Any
) -> None:
    """A run whose first task stands there; ``task`` changes its row, as ``MoveTask`` says."""

    def work(transaction: Transaction) -> None:
        start = wire.Start(node=node, inputs={}, run_id=run_id, tags=tags or {})
        changes = advance(State(), Started(run_id, start), Context(at or time.time(), b"secret"))
        transaction.write(changes)
        if task:
            (root,) = (change.task for change in changes if hasattr(change, "task"))
            row = {"status": TaskStatus.QUEUED, "attempt": 1, "tries": 1} | task
            transaction.write([MoveTask(run_id=run_id, task_id=root.id, **row)])

    transact(work)


def end(run_id: str, status: RunStatus, at: float | None = None, **words: Any) -> None:
    """End it."""
    ended = EndRun(run_id=run_id, status=status, ended_at=at or time.time(), **words)
    transact(lambda transaction: transaction.write([ended]))


def pause(run_id: str) -> None:
    """Pause it."""
    transact(lambda transaction: transaction.write([MoveRun(run_id, RunStatus.PAUSED)]))


def bury(*bodies: bytes, queue: str = "flowkit.starts", reason: str = "invalid", properties: bytes = b"{}") -> None:
    """Dead letters, numbered from 1."""
    letters = [DeadLetter(reason, f"detail of {body!r}", queue, body, properties, time.time()) for body in bodies]
    transact(lambda transaction: transaction.add_dead(letters))


def loop(run_id: str, steps: int, limits: Limits) -> None:
    """A run in which node ``poll`` sends itself so many times, and fails in the end."""

    def work(transaction: Transaction) -> None:
        event: Event = Started(run_id, wire.Start(node="poll", run_id=run_id))
        for step in range(steps + 1):
            (task,) = commit(transaction, [event], secret=b"secret", limits=limits).tasks
            event = Reported(wire.Result(task_id=task.task_id, run_id=run_id, nodes=("poll",), outputs={"step": step}))
        error = wire.Error(type="OSError", message="no route to host")
        failed = wire.Result(task_id=task.task_id, run_id=run_id, status=wire.Status.FAILED, error=error)
        commit(transaction, [Reported(failed)], secret=b"secret", limits=limits)

    transact(work)
