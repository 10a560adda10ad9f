"""A cancelled task is answered when it has ended, and one whose message comes late is not executed."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from flowkit.wire.messages import Status
from flowkit.worker.stage import OwnThread, SameLoop

from .tasks import define, task


class Slow:
    """A main that takes its time to end when it is cancelled."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self.calls = 0
        self.begun, self.cancelled, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def main(self):
        self.calls += 1
        self._loop.call_soon_threadsafe(self.begun.set)
        try:
            await asyncio.Event().wait()
        finally:
            self._loop.call_soon_threadsafe(self.cancelled.set)
            while not self.may_end.is_set():
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("stage", [SameLoop, OwnThread])
async def test_it_is_answered_when_its_main_has_ended_and_announced_until_then(house, stage):
    slow = Slow()
    async with house.worker(define(slow.main), stage=stage()) as worker:
        await house.announcement()
        mine = task()
        await house.send(mine)
        await slow.begun.wait()
        await house.control(kind="cancel", run_id=mine.run_id, task_id=mine.task_id, attempt=mine.attempt)
        await slow.cancelled.wait()
        await worker._announcer.announce()
        assert [entry.task_id for entry in (await house.announcement()).running] == [mine.task_id]
        asked = asyncio.create_task(house.result())
        done, _ = await asyncio.wait([asked], timeout=0.05)
        assert not done, "answered while its main goes on"
        slow.may_end.set()
        assert (await asked).status is Status.RETURNED
        assert worker.running == 0


async def test_several_tasks_are_named_in_one_message(house, gate):
    tasks = [task() for _ in range(3)]
    mine = [one.model_copy(update={"run_id": "r"}) for one in tasks]
    async with house.worker(define(gate.main)) as worker:
        await house.send(*mine)
        while len(gate.ids) < 3:
            await asyncio.sleep(0)
        first, second, other = mine
        await house.control(
            kind="cancel", run_id="r", task_id=first.task_id, attempt=first.attempt,
            others=((second.task_id, second.attempt), (other.task_id, other.attempt + 1)),
        )  # fmt: skip
        returned = await house.results(2)
        assert {one.task_id for one in returned} == {first.task_id, second.task_id}
        assert worker.running == 1, "another attempt was meant"


async def test_a_message_that_comes_after_the_cancellation_of_its_attempt_is_not_executed(house, gate):
    known, mine = task(), task()
    async with house.worker(define(gate.main)) as worker:
        await house.send(known)
        while not gate.ids:
            await asyncio.sleep(0)
        await house.control(kind="cancel", run_id=mine.run_id, task_id=mine.task_id, attempt=mine.attempt)
        await house.control(kind="cancel", run_id=known.run_id)
        assert (await house.result()).task_id == known.task_id  # the first message was read before
        await house.send(mine)
        result = await house.result()
        assert (result.task_id, result.attempt, result.status) == (mine.task_id, mine.attempt, Status.RETURNED)
        assert (await house.left(), worker.running) == (0, 0)
        again = mine.model_copy(update={"attempt": mine.attempt + 1})
        await house.send(again)
        while len(gate.ids) < 2:
            await asyncio.sleep(0)
        assert gate.ids == [known.task_id, mine.task_id], "the next attempt is executed"


async def test_its_message_is_acknowledged_when_it_takes_long_to_end(house):
    """The coordinator answers each announcement that lists it, and no ``consumer_timeout`` runs out meanwhile."""
    slow = Slow()
    async with house.worker(define(slow.main)) as worker:
        mine = task()
        await house.send(mine)
        await slow.begun.wait()
        told = {"kind": "cancel", "run_id": mine.run_id, "task_id": mine.task_id, "attempt": mine.attempt}
        await house.control(**told)
        await slow.cancelled.wait()
        (execution,) = worker._taken
        await house.control(**told, worker="other")
        assert execution.deliveries
        await house.control(**told, worker="w")
        while execution.deliveries:
            await asyncio.sleep(0)
        assert worker.running == 1
        slow.may_end.set()
        assert (await house.result()).status is Status.RETURNED


async def test_a_worker_that_ends_answers_for_a_cancelled_task_that_does_not_end(house):
    slow = Slow()
    async with house.worker(define(slow.main), drain_timeout=0.05) as worker:
        mine = task()
        await house.send(mine)
        await slow.begun.wait()
        await house.control(kind="cancel", run_id=mine.run_id)
        await slow.cancelled.wait()
        stopped = asyncio.create_task(worker.stop())
        assert (await house.result()).status is Status.RETURNED
        assert await stopped is False, "nothing runs again"
        slow.may_end.set()
    assert await house.left() == 0


async def test_a_grace_ends_as_a_cancellation_does(house):
    slow = Slow()
    async with house.worker(define(slow.main)) as worker:
        mine = task()
        await house.send(mine)
        await slow.begun.wait()
        await house.control(kind="cancel", run_id=mine.run_id, grace=0.01)
        await slow.cancelled.wait()
        assert worker.running == 1
        slow.may_end.set()
        assert (await house.result()).status is Status.RETURNED


def test_what_is_remembered_is_bounded(monkeypatch):
    from flowkit.worker import execution

    monkeypatch.setattr(execution, "_CANCELLED", 2)
    taken = execution.Taken()
    keys = [("r", uuid4().int, 1) for _ in range(3)]
    for key in keys:
        taken.cancel(key)
    assert [taken.was_cancelled(key) for key in keys] == [False, True, True]
