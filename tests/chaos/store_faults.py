"""Faults between coordinators and PostgreSQL: one of two is cut off from it, and COMMITs or their answers are lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from tests.chaos.nodes import COMMIT_KINDS, STORE_KINDS
from tests.chaos.stage import PATIENCE, Figures, Place, said, stage, until
from tests.services.postgres import database
from tests.services.postgres_proxy import PostgresProxy

HASTY = str(Path(__file__).with_name("hasty.py"))  # services with short intervals
FRESH = 10  # runs that begin while one of two coordinators has no store
# Seconds: more than queue_timeout, the silence of a worker and two looks of a hasty coordinator together, and more than
# its lease_silence.
HOLE = 8.5
LOSS = 0.3  # share of the COMMITs
LOST_COMMITS = 20  # of each kind in a round
# What a coordinator may not conclude of tasks whose results another coordinator holds, by its log.
WRONG_CONCLUSIONS = (
    "tasks were not taken by any worker in time", "tasks vanished from their queues", "leased tasks run nowhere",
)  # fmt: skip


async def store_cut_off(place: Place, rounds: int) -> Figures:
    """One of two coordinators loses its store: by a stall between transactions, a stall at any moment, a reset.

    A stall ends with a reset, as it does in a network where nothing is acknowledged. Until its store is back, runs
    begin and end through the other coordinator.
    """
    name = "one of two coordinators cut off from PostgreSQL"
    load = {"kinds": STORE_KINDS, "refusals": True, "at_once": 24}
    async with AsyncExitStack() as stack:
        store = stack.enter_context(database(place.postgres().url))
        proxy = await stack.enter_async_context(PostgresProxy(store))
        started = stage(name, place.folder, place.namespace, place.rabbit.url, store=store, program=HASTY,
                        worker_program=HASTY, load=load)  # fmt: skip
        here = await stack.enter_async_context(started)
        (healthy,) = here.coordinators
        cut_off = await here.coordinator("--store", proxy.url)
        for number in range(rounds):
            await here.progress(60)
            back = said(cut_off, "store is back")
            fresh = [asyncio.create_task(here.load.probe()) for _ in range(FRESH)]
            if stall := (proxy.stall_transactions, proxy.stall, None)[number % 3]:
                stall()
                await asyncio.sleep(HOLE)  # what is waited for is that nothing is concluded from it
            proxy.cut()
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*fresh)
            proxy.restore()
            await here.recovered()
            await until(lambda back=back: said(cut_off, "store is back") > back, "it to reach its store")
        figures = await here.conclude(dead=("refused",))
        for conclusion in WRONG_CONCLUSIONS:
            if times := said(healthy, conclusion):
                figures.wrong.append(f"{times} times the healthy coordinator concluded that {conclusion}")
        return figures


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
