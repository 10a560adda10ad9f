"""What must hold whatever went wrong: read from the rows of the store, the broker, and what was recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from flowkit.broker.memory.server import Server
from flowkit.flow import audit
from flowkit.flow.audit import Whole
from flowkit.flow.state import TaskStatus
from flowkit.store.views import Queries
from flowkit.testing.nodes import Call


def problems(
    queries: Queries, server: Server, nodes: Collection[str], calls: Sequence[Call], secret: bytes, *,
    accept: Collection[str],
) -> list[str]:  # fmt: skip
    """What does not hold, one line each.

    Args:
        queries: of the store.
        server: the broker.
        nodes: whose calls were recorded.
        calls: those that were.
        secret: of the store.
        accept: reasons of dead letters that were to be expected.
    """
    found = list(_left(server))
    found += [
        f"dead letter of {one.queue}: {one.reason}, {one.detail[:200]}"
        for one in queries.dead(limit=100)
        if one.reason not in accept
    ]
    called = {call.task_id for call in calls}
    after: str | None = None
    while True:
        runs, after = queries.runs(limit=100, after=after)
        for row in runs:
            whole = queries.whole(row.id)
            assert whole is not None, "both looks are in one snapshot"
            problems = [*audit.problems(whole, secret), *_never_ran(whole, nodes, called)]
            problems += [] if whole.run.status.ended else [f"it has not ended, it is {whole.run.status}"]
            found += [f"run {row.id}: {problem}" for problem in problems]
        if after is None:
            return found


def _left(server: Server) -> Iterator[str]:
    for name, queue in server.queues.items():
        if queue.takers and not queue.declared.stream and len(queue):
            yield f"{len(queue)} messages are left in {name}"


def _never_ran(whole: Whole, nodes: Collection[str], called: Collection[UUID]) -> Iterator[str]:
    for task in whole.tasks:
        if task.status is TaskStatus.SUCCEEDED and task.wait is None and task.node in nodes and task.id not in called:
            yield f"task {task.path} ({task.node}) succeeded and never ran"
