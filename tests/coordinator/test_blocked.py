"""Time goes on while nothing can be published: what it brings is committed on time, and published afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from flowkit.broker import Consumer
from flowkit.coordinator import Coordinator
from flowkit.store.views import Queries
from flowkit.wire import messages as wire
from tests.coordinator.house import FAST, House
from tests.coordinator.test_schedules import HOURLY, NOON, house, noon, put  # noqa: F401 - fixtures

PACE = replace(FAST, relay_after=3600, schedules_every=0.02)  # the relay publishes nothing that others are to publish
Unblock = Callable[[], None]


@pytest.fixture(params=["alarm", "connection lost"])
def block(request, house) -> Callable[[], Unblock]:  # noqa: F811
    """Makes publishing wait; what it returns ends that."""

    def begin() -> Unblock:
        if request.param == "alarm":
            house.broker.block()
            return house.broker.unblock
        house.broker.go_down()
        return house.broker.come_back

    return begin


@asynccontextmanager
async def begun(house: House, noon, block) -> AsyncIterator[Unblock]:  # noqa: F811
    """Runs with deadlines 10 and 20 s after noon, a wait of 30 s, and a task that cannot be published."""
    async with house.coordinator(pace=PACE):
        await house.start("a", "asking")
        (asking,) = await house.tasks("a")
        await house.answer(asking, [{"wait": {"name": "go", "timeout": 30, "then": "b"}}])
        await house.until(lambda queries: states(queries, "asking") == ["succeeded", "waiting"], "the wait")
        for seconds in (10, 20):
            await house.start("a", f"limited-{seconds}", deadline=seconds)
        await house.tasks("a", 2)
        await house.start("a", "delayed", delay=5)
        await house.until(lambda queries: states(queries, "delayed") == ["held"], "a delayed task")
        unblock = block()
        noon.now = NOON + 6
        await house.until(lambda queries: states(queries, "delayed") == ["queued"], "a task is being published")
        yield unblock


async def test_deadlines_and_timeouts_are_kept(house, noon, block):  # noqa: F811
    ends = house.broker.consume(house.topology.runs("test"), prefetch=10)
    async with begun(house, noon, block) as unblock:
        for seconds in (10, 20):  # the end of the first is being published when the second is due
            noon.now = NOON + seconds + 0.2
            assert (await house.run_ended(f"limited-{seconds}")).status == "failed"
        noon.now = NOON + 31
        await house.until(lambda queries: states(queries, "asking")[1:2] != ["waiting"], "the wait is over")
        unblock()
        assert [end.run_id for end in await announced(ends, 3)] == ["limited-10", "limited-20", "asking"]
        assert [task.run_id for task in await house.tasks("a")] == ["delayed"]


async def test_schedules_begin_runs(house, noon, block):  # noqa: F811
    await put(house, replace(HOURLY, overlap=True, next_at=NOON + 3600, look_at=NOON + 3600))
    async with begun(house, noon, block) as unblock:
        runs = [f"hourly-20261201T{12 + hour}0000Z" for hour in (1, 2)]
        for hour, run in enumerate(runs, 1):
            noon.now = NOON + 3600 * hour + 0.2
            assert await house.until(lambda queries, run=run: queries.run(run), f"{run} has begun")
        unblock()
        assert [task.run_id for task in await house.tasks("report", 2)] == runs


async def test_a_coordinator_that_begins_meanwhile_keeps_deadlines_too(house, noon):  # noqa: F811
    async with house.coordinator(pace=PACE):
        await house.start("a", "limited", deadline=10)
        await house.tasks("a")
        await house.start("a", "delayed", delay=5)
        await house.until(lambda queries: states(queries, "delayed") == ["held"], "a delayed task")
    noon.now = NOON + 6
    await house.store.transact(lambda transaction: transaction.release_due(noon.now, 1, {}))  # and nobody sends it
    noon.now = NOON + 11
    house.broker.block()
    coordinator = Coordinator(house.broker, house.store, house.topology, name="c2", pace=PACE, alone=True)
    running = asyncio.create_task(coordinator.run())
    assert (await house.run_ended("limited")).status == "failed"
    house.broker.unblock()
    assert [task.run_id for task in await house.tasks("a")] == ["delayed"]
    coordinator.stop()
    await running


def states(queries: Queries, run_id: str) -> list[str]:
    return [task.status for task in queries.tasks(run_id)]


async def announced(ends: Consumer, count: int) -> list[wire.RunEnded]:
    found: list[wire.RunEnded] = []
    while len(found) < count:
        deliveries = await ends.receive(count - len(found))
        found += [wire.decode(wire.RunEnded, delivery.body) for delivery in deliveries]
        await ends.ack(deliveries)
    return found
