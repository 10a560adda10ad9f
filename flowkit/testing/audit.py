"""What must hold whatever went wrong: read from the store, the broker and what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from uuid import UUID

from flowkit.broker.memory.server import Server
from flowkit.flow.state import OUTSTANDING
from flowkit.store.protocol import RunRow, Store, TaskRow
from flowkit.testing.nodes import Call

RAN = "succeeded"


async def problems(store: Store, server: Server, nodes: Sequence[str], calls: Sequence[Call]) -> list[str]:
    """What does not hold, one line each."""
    found = list(_broker(server))
    wrong = await store.transact(lambda transaction: transaction.recount())
    if wrong:
        found.append(f"{wrong} counters of scopes disagreed with their rows")
    letters = await store.query(lambda queries: queries.dead(limit=10))
    found += [f"a dead letter of {letter.queue}: {letter.reason}, {letter.detail[:200]}" for letter in letters]
    called = {call.task_id for call in calls}
    runs, _ = await store.query(lambda queries: queries.runs(limit=100_000))
    for run in runs:
        tasks = await store.query(lambda queries, run=run: queries.tasks(run.id))  # type: ignore[misc]
        found += [f"run {run.id}: {problem}" for problem in _run(run, tasks, nodes, called)]
    return found


def _broker(server: Server) -> Iterator[str]:
    for name, queue in server.queues.items():
        if queue.takers and not queue.declared.stream and len(queue):
            yield f"{len(queue)} messages are left in {name}"


def _run(run: RunRow, tasks: Sequence[TaskRow], nodes: Sequence[str], called: set[UUID]) -> Iterator[str]:
    if run.ended_at is None:
        yield f"it has not ended, it is {run.status}"
    for path, count in Counter(task.path for task in tasks).items():
        if count > 1:
            yield f"{count} tasks stand at {path}: something was applied twice"
    for task in tasks:
        about = f"task {task.path} of node {task.node}"
        if run.ended_at is not None and task.status in OUTSTANDING:
            yield f"{about} is {task.status} although it has ended"
        if task.status == RAN and task.signal is None and task.node in nodes and task.id not in called:
            yield f"{about} succeeded and never ran"
