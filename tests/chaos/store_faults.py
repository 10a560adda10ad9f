"""Faults between coordinators and PostgreSQL."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from tests.chaos.nodes import COMMIT_KINDS
from tests.chaos.stage import Figures, Place, stage, until
from tests.services.postgres import database
from tests.services.postgres_proxy import PostgresProxy

HASTY = str(Path(__file__).with_name("hasty.py"))  # services with short intervals
LOSS = 0.3  # share of the COMMITs
LOST_COMMITS = 20  # of each kind in a round


async def commit_answers_lost(place: Place, rounds: int) -> Figures:
    """Connections of two coordinators are lost at COMMIT: before the server gets it, or after it has committed."""
    async with AsyncExitStack() as stack:
        store = stack.enter_context(database(place.postgres().url))
        proxy = await stack.enter_async_context(PostgresProxy(store, seed=rounds))
        started = stage("COMMITs and answers to COMMIT lost (PostgreSQL)", place.folder, place.namespace,
                        place.rabbit.url, store=proxy.url, program=HASTY, worker_program=HASTY, coordinators=2,
                        load={"kinds": COMMIT_KINDS, "refusals": True, "at_once": 24})  # fmt: skip
        here = await stack.enter_async_context(started)
        for _ in range(rounds):
            before, after = proxy.dropped_before + LOST_COMMITS, proxy.dropped_after + LOST_COMMITS
            proxy.lose_commits(LOSS)
            await until(
                lambda before=before, after=after: proxy.dropped_before >= before and proxy.dropped_after >= after,
                "COMMITs to be lost",
            )
            proxy.restore()
            await here.recovered()
        figures = await here.conclude(dead=("refused",))
        figures.notes = f"{proxy.commits} COMMITs, lost {proxy.dropped_before}, answers lost {proxy.dropped_after}"
        return figures
