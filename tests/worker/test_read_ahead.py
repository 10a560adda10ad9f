"""What a worker holds beside what it runs: nothing, but for one short task."""

from __future__ import annotations

import asyncio

import pytest

from flowkit.worker import read_ahead

from .tasks import define, lease, task, until


class Mains:
    """A main that is short, and one run of it that is long, and waits."""

    def __init__(self) -> None:
        self.begun: list[object] = []
        self.release = asyncio.Event()

    async def main(self):
        from flowkit.worker.current import current

        inputs = current.get().task.inputs
        self.begun.append(inputs.get("n"))
        if inputs.get("long"):
            await self.release.wait()
        return [], {}, ""


@pytest.fixture
def mains():
    return Mains()


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A second takes a while."""
    monkeypatch.setattr(read_ahead, "PATIENCE", 0.04)


async def short_ones(house, count=read_ahead.SAMPLES) -> None:
    await house.send(*[task(inputs={"n": n}) for n in range(count)])
    await house.results(count)


@pytest.mark.parametrize("slots", [1, 2, 5])
async def test_it_holds_no_more_tasks_than_it_runs(house, mains, slots):
    async with house.worker(define(mains.main, concurrency=slots)) as worker:
        await house.send(*[task(inputs={"long": True}) for _ in range(slots + 3)])
        await until(lambda: len(mains.begun) == slots)
        assert (worker.running, await house.left()) == (slots, 3)
        mains.release.set()
        await house.results(slots + 3)


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
async def test_short_tasks_are_read_ahead_and_one_that_waits_for_long_ones_goes_back(house, mains, slots):
    async with house.worker(define(mains.main, concurrency=slots)) as worker:
        await short_ones(house)
        await until(lambda: len(worker._intakes[0].consumers) == 2 and worker.connected)
        long, behind = [task(inputs={"n": "long", "long": True}) for _ in range(slots)], task(inputs={"n": "behind"})
        await house.send(*long)
        await until(lambda: mains.begun.count("long") == slots)
        await house.send(behind)
        await until(lambda: worker.running == slots + 1)  # it is read ahead
        await until(lambda: worker.running == slots)  # and goes back
        assert await house.left() == 1
        assert worker.connected
        (again,) = await house.receive(house.topology.tasks("work"))
        assert (again.body, again.delivery_count) == (behind.encode(), 1)
        mains.release.set()
        assert {one.task_id for one in await house.results(slots)} == {one.task_id for one in long}
        await house.send(task(inputs={"n": "next"}))
        await until(lambda: "next" in mains.begun or "behind" in mains.begun)


async def test_the_number_of_consumers_is_announced_before_it_falls(house, mains):
    async with house.worker(define(mains.main, concurrency=1), heartbeat=0.01) as worker:
        await short_ones(house)
        while not (told := await house.announcement()).consumers:
            pass
        assert (told.consumers, told.consumers_of("work"), told.consumers_of("other")) == ({"work": 2}, 2, 1)
        await house.send(task(inputs={"long": True}), task())
        await until(lambda: len(worker._intakes[0].consumers) == 1)
        while (await house.announcement()).consumers:
            pass
        mains.release.set()
        await house.results(2)


async def test_while_its_only_task_is_leased_it_takes_no_other_one(house, mains):
    async with house.worker(define(mains.main, concurrency=1)) as worker:
        long, behind = task(inputs={"long": True}), task(inputs={"n": "behind"})
        await house.send(long, behind)
        await until(lambda: mains.begun)
        await lease(house, long)
        await until(lambda: worker.running == 2)
        await until(lambda: worker.running == 1)
        assert (await house.left(), len(worker._intakes[0].consumers), worker.connected) == (1, 0, True)
        mains.release.set()
        results = await house.results(2)
        assert {one.task_id for one in results} == {long.task_id, behind.task_id}
        assert len(worker._intakes[0].consumers) == 1


async def test_tasks_that_are_not_short_are_not_read_ahead(house, monkeypatch, mains):
    monkeypatch.setattr(read_ahead, "SHORT", -1)
    async with house.worker(define(mains.main, concurrency=1)) as worker:
        await short_ones(house, 3 * read_ahead.SAMPLES)
        assert len(worker._intakes[0].consumers) == 1
