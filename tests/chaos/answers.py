"""Whether every end of a run was announced, and every refused command was answered by a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from uuid import UUID

from flowkit.store.protocol import Store
from flowkit.store.views import Queries
from flowkit.wire import messages as wire

LETTERS = 20_000  # dead letters that are looked at
LOOK = 0.1  # seconds between looks at dead letters that are on their way


async def wait_dead_letters(store: Store, commands: Collection[UUID], timeout: float) -> list[str]:
    """Wait until there is a dead letter for each of these commands.

    Args:
        store: open.
        commands: ids of commands that had to be refused.
        timeout: seconds.

    Returns:
        what is missing after that time, a line each.
    """
    missing = set(commands)
    try:
        async with asyncio.timeout(timeout):
            while missing := missing - await store.query(_refused_commands):
                await asyncio.sleep(LOOK)
    except TimeoutError:
        return [f"command {command} had to be refused, and has no dead letter" for command in sorted(missing)]
    return []


async def missing_answers(store: Store, received: Collection[str], *, wiped: bool) -> list[str]:
    """The ends and refusals in the rows that nobody was informed of, a line each.

    Args:
        store: open.
        received: runs whose ends a client has received.
        wiped: the broker has lost its data, and with it dead letters that no coordinator had read.
    """
    return await store.query(lambda queries: list(_missing(queries, frozenset(received), wiped=wiped)))


def _missing(queries: Queries, received: frozenset[str], *, wiped: bool) -> Iterator[str]:
    letters, marked = _refused_commands(queries), queries.unannounced()
    after: str | None = None
    while True:
        runs, after = queries.runs(limit=100, after=after)
        for run in runs:
            if marked and run.id not in received and (whole := queries.whole(run.id)) and whole.unannounced_since:
                yield f"{run.id} has ended: its end is not announced, and no client has received it"
            for command in queries.commands(run.id):
                if command.refused is not None and command.id not in letters and not wiped:
                    yield f"{run.id}: {command.kind} was refused ({command.refused}), and there is no dead letter"
        if after is None:
            return


def _refused_commands(queries: Queries) -> set[UUID]:
    letters = queries.dead(limit=LETTERS)
    return {wire.decode(wire.Command, one.body).id for one in letters if one.reason == "refused"}
