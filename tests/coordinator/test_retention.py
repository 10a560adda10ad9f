"""What is old is forgotten by itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from flowkit.broker import open_broker
from flowkit.coordinator import retention
from flowkit.store import open_store
from flowkit.store.protocol import DeadLetter
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology
from tests.contract.stores import Clock
from tests.coordinator.house import FAST, House

DAY = 86_400.0
KEEP = replace(FAST, retention=30 * DAY, retention_every=0.02)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = 1_796_126_400.0
    return clock


@pytest.fixture
async def house(tmp_path, clock) -> AsyncIterator[House]:
    broker, store = open_broker(f"memory:{uuid4().hex}"), await open_store(f"sqlite:///{tmp_path}/f.db", clock=clock)
    async with contextlib.AsyncExitStack() as stack:
        for thing in (broker, store, house := House(broker, store, Topology())):
            stack.push_async_callback(thing.close)
        yield house


async def ended(house: House, *runs: str) -> None:
    for run_id in runs:
        await house.start("a", run_id)
        (task,) = await house.tasks("a")
        await house.answer(task)
        await house.run_ended(run_id)


async def archive(house: House, at: float, *lines: str | None) -> None:
    logs = [
        wire.Log(ts=at, level="INFO", message="m", run_id=run_id, worker="w", seq=n) for n, run_id in enumerate(lines)
    ]
    await house.store.transact(lambda tx: tx.archive(logs, tx.archive_offset()))


async def test_what_ended_long_ago_goes_and_the_rest_stays(house, clock, caplog):
    caplog.set_level("INFO", "flowkit")
    async with house.coordinator(pace=KEEP):
        await ended(house, "old")
        await house.start("b", "waits-for-long")
        await house.tasks("b")
        await archive(house, clock.now, None, "old", "waits-for-long", "gone-before")
        clock.now += 29 * DAY
        await ended(house, "young")
        await house.store.transact(
            lambda tx: tx.add_dead([DeadLetter("invalid", "", "flowkit.starts", b"", b"{}", clock.now - 99 * DAY)])
        )
        clock.now += 1.5 * DAY
        await house.until(lambda queries: queries.run("old") is None, "the old run is gone")
        left = await house.until(
            lambda queries: (lines := queries.logs()) and len(lines) == 1 and lines, "the lines of no run are gone"
        )
        assert [line.run_id for line in left] == ["waits-for-long"]
        runs, _ = await house.store.query(lambda queries: queries.runs(limit=9))
        assert {run.id: run.status for run in runs} == {"young": "succeeded", "waits-for-long": "running"}
        assert await house.store.query(lambda queries: queries.count_dead()) == 1
        clock.now += 30 * DAY
        await house.until(lambda queries: queries.run("young") is None, "the young run is old")
        await house.until(
            lambda _: any(message.startswith("forgot 1 runs, ") for message in caplog.messages), "it says so"
        )


async def test_workers_that_are_gone_are_forgotten(house, clock):
    async with house.coordinator(pace=KEEP):
        await house.publish("workers", "", {"worker": "w1", "nodes": [], "running": []})
        await house.until(lambda queries: queries.workers(seen_since=0), "the worker")
        clock.now += 31 * DAY
        await house.until(lambda queries: not queries.workers(seen_since=0), "it is forgotten")


async def test_without_a_term_everything_stays(house, clock):
    async with house.coordinator(pace=replace(KEEP, retention=None)):
        await ended(house, "old")
        clock.now += 9_999 * DAY
        await ended(house, "young")
        assert await house.store.query(lambda queries: queries.run("old")) is not None


async def test_it_goes_in_small_steps(house, clock, monkeypatch):
    """Between any two of them others have their turn."""
    monkeypatch.setattr(retention, "ROWS", 3)
    monkeypatch.setattr(retention, "PAUSE", 0)
    steps = []
    async with house.coordinator(pace=replace(KEEP, retention=None)):
        await ended(house, *(f"r{number}" for number in range(5)))
    clock.now += 31 * DAY
    ledger = Counting(house.store, steps)
    await retention.Retention(ledger, keep=30 * DAY, every=1).sweep()
    assert [step for step in steps if isinstance(step, retention.Pruned)][-1] == retention.Pruned(runs=0, rows=0)
    assert sum(step.runs for step in steps if isinstance(step, retention.Pruned)) == 5
    assert max(step.rows for step in steps if isinstance(step, retention.Pruned)) == 3
    assert await house.store.query(lambda queries: queries.runs(limit=9)) == ([], None)


class Counting:
    """A ledger that notes what its transactions returned."""

    def __init__(self, store, steps) -> None:
        self._store, self._steps = store, steps

    async def transact(self, function):
        found = await self._store.transact(function)
        self._steps.append(found)
        return found
