"""Clocks that are set while tasks wait and run: how long that was is measured by a clock that is not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from flowkit.broker import open_broker
from flowkit.store import open_store
from flowkit.wire.topology import Topology
from tests.coordinator.house import FAST, House
from tests.coordinator.test_leases import LEASING, announce, announce_once, began, heard, row
from tests.coordinator.test_overdue import SOON, TIMEOUT

STEPS = (120, 3600, -3600)  # seconds


class WallClock:
    """The real time, and what somebody added to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def __call__(self) -> float:
        return time.time() + self.added


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def house(tmp_path, clock) -> AsyncIterator[House]:
    broker = open_broker(f"memory:{uuid4().hex}")
    store = await open_store(f"sqlite:///{tmp_path}/flowkit.db", clock=clock)
    house = House(broker, store, Topology("flowkit"))
    yield house
    await house.close()
    await store.close()
    await broker.close()


@pytest.mark.parametrize("step", STEPS)
async def test_a_lease_of_a_worker_that_speaks_goes_on(house, clock, caplog, step):
    async with house.coordinator(pace=replace(LEASING, overdue_every=3600)):
        task = await began(house)
        await announce(house, (task, time.time()))
        await house.until(lambda queries: queries.tasks("r1")[0].leased_until, "the lease")
        since = time.monotonic()
        while time.monotonic() < since + 2 * LEASING.lease_silence:  # it has listened for long enough
            await announce_once(house, (task, time.time()))
            await heard(house)
        clock.added = step
        await house.until(lambda _: "the clock of the store was set" in caplog.text, "the step is recognised")
        await announce_once(house, (task, time.time()))
        await heard(house)
        leased = await row(house)
        assert (leased.attempt, leased.deaths) == (1, 0)
        assert 0 < leased.leased_until - clock() <= LEASING.lease_silence
        await house.answer(task)
        assert (await house.run_ended("r1")).status == "succeeded"


async def test_a_task_that_waits_for_a_worker_does_not_fail_by_it(house, clock, caplog):
    async def announce_node(name: str, timeout: float) -> None:
        node = {"name": name, "queue_timeout": timeout}
        await house.publish("workers", "", {"worker": name, "nodes": [node], "running": []})
        await house.until(lambda queries: any(found == name for found, *_ in queries.node_infos()), "the node")

    async with house.coordinator(pace=replace(SOON, lease_silence=FAST.lease_silence)):
        await announce_node("slow", 60)
        await house.start("slow", "r")
        await house.until(lambda queries: [task for task in queries.tasks("r") if task.sent_at], "it is sent")
        clock.added = 120
        await house.until(lambda _: "the clock of the store was set" in caplog.text, "the step is recognised")
        await announce_node("witness", TIMEOUT)
        await house.start("witness", "witness")
        assert (await house.run_ended("witness")).status == "failed"
        (task,) = await house.tasks("slow")
        await house.answer(task)
        assert (await house.run_ended("r")).status == "succeeded"
