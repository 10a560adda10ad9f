"""Clocks that are set while tasks wait and run: how long that was is measured by a clock that is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from flowkit.broker import open_broker
from flowkit.coordinator.clock_steps import ClockSteps
from flowkit.node import Node
from flowkit.store import open_store
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology
from flowkit.worker.announce import describe_node
from flowkit.worker.worker import Worker
from tests.coordinator.house import FAST, House
from tests.coordinator.test_leases import LEASING, announce, announce_once, began, heard, row
from tests.coordinator.test_overdue import SOON, TIMEOUT

AHEAD, PATIENT = 3600.0, 60.0  # seconds
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


def checked(monkeypatch: pytest.MonkeyPatch, loop: str) -> asyncio.Event:
    """Set when a loop has asked for the store's time: only what it finds after that can be a step."""
    event = asyncio.Event()

    class Checked(ClockSteps):
        async def check(self) -> bool:
            stepped = await super().check()
            event.set()
            return stepped

    monkeypatch.setattr(f"flowkit.coordinator.{loop}.ClockSteps", Checked)
    return event


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


async def test_a_task_that_waits_for_a_worker_does_not_fail_by_it(house, clock, caplog, monkeypatch):
    async def announce_node(name: str, timeout: float) -> None:
        node = {"name": name, "queue_timeout": timeout}
        await house.publish("workers", "", {"worker": name, "nodes": [node], "running": []})
        await house.until(lambda queries: any(found == name for found, *_ in queries.node_infos()), "the node")

    overdue_checked = checked(monkeypatch, "overdue")
    async with house.coordinator(pace=replace(SOON, lease_silence=FAST.lease_silence)):
        await announce_node("slow", 60)
        await house.start("slow", "r")
        await house.until(lambda queries: [task for task in queries.tasks("r") if task.sent_at], "it is sent")
        await overdue_checked.wait()
        clock.added = 120
        await house.until(lambda _: "the clock of the store was set" in caplog.text, "the step is recognised")
        await announce_node("witness", TIMEOUT)
        await house.start("witness", "witness")
        assert (await house.run_ended("witness")).status == "failed"
        (task,) = await house.tasks("slow")
        await house.answer(task)
        assert (await house.run_ended("r")).status == "succeeded"


async def test_a_lease_of_a_worker_that_died_before_a_clock_was_set_back_ends(house, clock):
    async with house.coordinator(pace=LEASING):
        task = await began(house)
        await announce(house, (task, time.time()))
        await house.until(lambda queries: queries.tasks("r1")[0].leased_until, "the lease")
        clock.added = -3600
        (again,) = await house.tasks("a")
        assert (again.task_id, again.attempt) == (task.task_id, 2)


async def test_a_task_that_was_sent_before_a_clock_was_set_back_fails_by_its_queue_timeout(house, clock):
    async with house.coordinator(pace=SOON):
        node = {"name": "slow", "queue_timeout": 1}
        await house.publish("workers", "", {"worker": "w", "nodes": [node], "running": []})
        await house.until(lambda queries: queries.node_infos(), "the node")
        await house.start("slow", "r")
        await house.until(lambda queries: [task for task in queries.tasks("r") if task.sent_at], "it is sent")
        clock.added = -3600
        assert (await house.run_ended("r")).status == "failed"


async def test_the_end_of_a_run_that_a_full_queue_refuses_is_announced_for_as_long(house, clock, caplog):
    queue = house.topology.runs("test")

    async def refused(times: int) -> None:
        await house.until(lambda _: caplog.text.count("are announced later") >= times, "it is refused")

    async with house.coordinator(clock=clock):
        ends = house.broker.consume(queue, prefetch=1)
        await ends.wait_connected()
        house.broker.limit_length(queue.name, 0)
        await house.start("a", "r")
        (task,) = await house.tasks("a")
        await house.answer(task)
        await house.run_ended("r")
        await refused(1)
        clock.added = 3600
        await refused(3)
        house.broker.limit_length(queue.name, None)
        (end,) = await ends.receive(1)
        assert wire.decode(wire.RunEnded, end.body).run_id == "r"


async def test_a_worker_whose_clock_is_ahead_runs_what_it_is_given_in_time(house):
    node = Node("slow", queue_timeout=PATIENT)

    @node.main
    async def main():
        return [], {"done": True}, ""

    async with house.coordinator():
        worker = Worker(house.broker, house.topology, [node.definition], clock=lambda: time.time() + AHEAD)
        working = asyncio.create_task(worker.run())
        await house.until(lambda queries: queries.node_infos(), "the node")
        await house.start("slow", "r")
        assert (await house.run_ended("r")).status == "succeeded"
        await worker.stop()
        await working
    (row,) = await house.rows("r")
    assert (row.attempt, row.tries) == (2, 1), "it was refused once, and sent again"


async def test_a_clock_that_is_set_forward_before_a_worker_takes_a_task_makes_it_no_later(house, clock):
    node = Node("slow", queue_timeout=PATIENT)

    @node.main
    async def main():
        return [], {"done": True}, ""

    async with house.coordinator(clock=clock, pace=replace(FAST, overdue_every=3600)):
        told = wire.Worker(worker="w", nodes=(describe_node(node.definition),))
        await house.publish("workers", "", told.encode(), durable=False)
        await house.until(lambda queries: queries.node_infos(), "the node")
        await house.start("slow", "r")
        await house.until(lambda queries: [task for task in queries.tasks("r") if task.sent_at], "it is sent")
        clock.added = 3600
        worker = Worker(house.broker, house.topology, [node.definition], clock=clock)
        working = asyncio.create_task(worker.run())
        assert (await house.run_ended("r")).status == "succeeded"
        await worker.stop()
        await working


@pytest.mark.parametrize("timeout", [3600, 0.5])
@pytest.mark.parametrize("step", [4000, -4000])
async def test_a_message_of_a_cancelled_task_keeps_its_slot_until_its_time_is_over(
    house, clock, caplog, monkeypatch, step, timeout
):
    """Nobody takes it. That of ``z`` was lost, so its slot is free when the coordinator has listened long enough."""
    silence_checked = checked(monkeypatch, "silence")
    pace = replace(FAST, lease_silence=0.6, slots_every=3600)
    async with house.coordinator(clock=clock, pace=pace):
        nodes = [{"name": "b", "limit": 1, "queue_timeout": timeout}, {"name": "z", "limit": 1}]
        await house.publish("workers", "", {"worker": "gone", "nodes": nodes, "running": []})
        await house.until(lambda queries: len(queries.node_infos()) > 1, "the announcement")
        await house.start("b", "waits")
        await house.until(lambda queries: [row for row in queries.tasks("waits") if row.sent_at], "it is sent")
        await house.start("z", "lost")
        await house.tasks("z")
        for node in "bz":
            await house.start(node, f"next-{node}")
        for run_id in ("waits", "lost"):
            await house.publish("commands", "cancel", {"id": str(uuid4()), "kind": "cancel", "run_id": run_id})
            await house.run_ended(run_id)
        await silence_checked.wait()
        clock.added = step
        await house.until(lambda _: "the clock of the store was set" in caplog.text, "the step is recognised")
        (following,) = await house.tasks("z")
        assert following.run_id == "next-z"
        if timeout < 1:
            await house.until(lambda queries: not queries.cancelled_attempts(), "the slot of b is free too")
        else:
            assert await house.store.query(lambda queries: queries.cancelled_attempts()) == 1
