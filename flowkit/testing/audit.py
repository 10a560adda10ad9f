"""What must hold whatever went wrong: read from the rows of the store, the broker, and what was recorded."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from flowkit.broker.memory.server import Server
from flowkit.flow import audit
from flowkit.flow.audit import Whole
from flowkit.flow.state import TaskStatus
from flowkit.store.protocol import DeadLetter
from flowkit.store.views import Queries
from flowkit.testing.nodes import Call
from flowkit.wire import messages as wire

LETTERS = 1_000  # dead letters that are looked at


def problems(
    queries: Queries, server: Server, nodes: Collection[str], calls: Sequence[Call], secret: bytes, *,
    announced: Collection[str], wiped: bool, accept: Collection[str],
) -> list[str]:  # fmt: skip
    """What does not hold, one line each.

    Args:
        queries: of the store.
        server: the broker.
        nodes: whose calls were recorded.
        calls: those that were.
        secret: of the store.
        announced: runs whose ends the broker has confirmed.
        wiped: the broker has forgotten what was in it, dead letters that nobody had read among it.
        accept: reasons of dead letters that were to be expected.
    """
    found = list(_left(server))
    found += [
        f"dead letter of {one.queue}: {one.reason}, {one.detail[:200]}"
        for one in queries.dead(limit=LETTERS)
        if one.reason not in accept
    ]
    called = {call.task_id for call in calls}
    letters = _commands_among(queries.dead(limit=LETTERS))
    after: str | None = None
    while True:
        runs, after = queries.runs(limit=100, after=after)
        for row in runs:
            whole = queries.whole(row.id)
            assert whole is not None, "both looks are in one snapshot"
            problems = [
                *audit.problems(whole, secret, announced_before=math.inf),
                *_never_ran(whole, nodes, called),
                *([] if wiped else _unanswered(queries, row.id, letters)),
            ]
            if not whole.run.status.ended:
                problems.append(f"it has not ended, it is {whole.run.status}")
            elif row.id not in announced:
                problems.append("it has ended, and the broker knows nothing of that")
            found += [f"run {row.id}: {problem}" for problem in problems]
        if after is None:
            return found


def _commands_among(letters: Sequence[DeadLetter]) -> set[UUID]:
    """The ids of the commands that were kept as refused."""
    return {wire.decode(wire.Command, letter.body).id for letter in letters if letter.reason == "refused"}


def _unanswered(queries: Queries, run_id: str, letters: Collection[UUID]) -> Iterator[str]:
    for command in queries.commands(run_id):
        if command.refused is not None and command.id not in letters:
            yield f"a {command.kind} was refused ({command.refused}), and nobody was told"


def _left(server: Server) -> Iterator[str]:
    for name, queue in server.queues.items():
        if queue.takers and not queue.declared.stream and len(queue):
            yield f"{len(queue)} messages are left in {name}"


def _never_ran(whole: Whole, nodes: Collection[str], called: Collection[UUID]) -> Iterator[str]:
    for task in whole.tasks:
        if task.status is TaskStatus.SUCCEEDED and task.wait is None and task.node in nodes and task.id not in called:
            yield f"task {task.path} ({task.node}) succeeded and never ran"
