"""Leases, and cancelling with a grace, as a worker sees them."""

from __future__ import annotations

import asyncio

import pytest

from flowkit.wire.durations import LONGEST
from flowkit.wire.messages import Control, Status

from .tasks import define, lease, task, until


def leased_to(mine, **more):
    return {
        "kind": "leased",
        "run_id": mine.run_id,
        "task_id": mine.task_id,
        "attempt": mine.attempt,
        "worker": "w",
    } | more


class Slow:
    """A main that says how it ended."""

    def __init__(self):
        self.begun, self.ended, self.go = 0, [], asyncio.Event()

    async def main(self):
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("through")
        return [], {}, "through"

    async def begins(self, count=1):
        await until(lambda: self.begun == count)


@pytest.fixture
def slow():
    return Slow()


async def test_a_leased_task_survives_the_loss_of_its_connection_and_answers_once(house, slow):
    async with house.worker(define(slow.main)) as worker:
        mine = task()
        await house.send(mine)
        await slow.begins()
        await house.control(**leased_to(mine))
        await until(lambda: not any(one.deliveries for one in worker._taken))
        house.broker.disconnect()
        slow.go.set()
        assert (await house.result()).status is Status.SUCCEEDED
        assert await worker.stop() is False
    assert (slow.begun, await house.left()) == (1, 0)


async def test_a_lease_that_is_said_again_takes_what_was_delivered_again(house, slow):
    async with house.worker(define(slow.main)) as worker:
        mine = task()
        await house.send(mine)
        await slow.begins()
        await house.send(mine)  # as after an acknowledgement that was lost
        await until(lambda: [len(one.deliveries) for one in worker._taken] == [2])
        for _ in range(2):
            await house.control(**leased_to(mine))
        await until(lambda: not any(one.deliveries for one in worker._taken))
        slow.go.set()
        await house.result()
        assert await worker.stop() is False
    assert (slow.begun, await house.left()) == (1, 0)


@pytest.mark.parametrize("more", [{"worker": "other"}, {"attempt": 2}, {"run_id": "other"}])
async def test_the_lease_of_somebody_else_leaves_the_message_unacknowledged(house, slow, more):
    async with house.worker(define(slow.main)) as worker:
        mine = task()
        await house.send(mine)
        await slow.begins()
        await house.control(**leased_to(mine, **more))
        await house.control(kind="paused", run_id="other")
        await house.control(kind="cancel", run_id=mine.run_id, grace=3600)  # heard after all that
        await until(lambda: all(one.grace for one in worker._taken))
        assert [len(one.deliveries) for one in worker._taken] == [1]
        slow.go.set()
        await house.result()


async def test_draining_brings_a_leased_task_back_by_a_result(house, slow):
    async with house.worker(define(slow.main), drain_timeout=0.01) as worker:
        leased, plain = task(), task()
        await house.send(leased, plain)
        await slow.begins(2)
        await house.control(**leased_to(leased))
        await until(lambda: sum(bool(one.deliveries) for one in worker._taken) == 1)
        assert await worker.stop() is True
        result = await house.result()
        assert (result.task_id, result.status, result.attempt) == (leased.task_id, Status.RETURNED, 1)
    assert await house.left() == 1, "the other one comes back by its message"


async def test_a_cancel_for_what_is_answered_changes_nothing(house, slow):
    async with house.worker(define(slow.main)) as worker:
        mine = task()
        await house.send(mine)
        await slow.begins()
        house.broker.block()  # its result waits for the broker
        slow.go.set()
        await until(lambda: all(one.reported for one in worker._taken))
        for grace in ({}, {"grace": 0.001}, {"grace": 3600}):
            await worker._runner.obey(Control(kind="cancel", run_id=mine.run_id, task_id=mine.task_id, **grace))
        await worker._runner.obey(Control(kind="paused", run_id=mine.run_id))
        house.broker.unblock()
        assert (await house.result()).status is Status.SUCCEEDED
        assert await worker.stop() is False
    assert slow.ended == ["through"]


# A grace


async def test_a_grace_lets_what_runs_come_to_its_end_and_nothing_begin(house, slow):
    async with house.worker(define(slow.main, concurrency=1)) as worker:
        running, waiting = task(), task()
        await house.send(running, waiting)
        await slow.begins()
        await lease(house, running)
        await until(lambda: len(worker._taken) == 2)
        await house.control(kind="cancel", run_id="run-1", grace=3600)
        returned = await house.result()
        assert (returned.task_id, returned.status) == (waiting.task_id, Status.RETURNED)
        slow.go.set()
        done = await house.result()
        assert (done.task_id, done.status) == (running.task_id, Status.SUCCEEDED)
        assert await worker.stop() is False
    assert (slow.begun, await house.left()) == (1, 0)


async def test_after_its_grace_what_runs_is_interrupted(house, slow):
    async with house.worker(define(slow.main)) as worker:
        await house.send(task())
        await slow.begins()
        await house.control(kind="cancel", run_id="run-1", grace=0.01)
        assert (await house.result()).status is Status.RETURNED
        await until(lambda: slow.ended == ["cancelled"])
        assert await worker.stop() is False
    assert await house.left() == 0


async def test_a_grace_that_is_said_again_is_neither_shorter_nor_longer(house, slow):
    async with house.worker(define(slow.main)) as worker:
        await house.send(task())
        await slow.begins()
        await house.control(kind="cancel", run_id="run-1", grace=3600)
        await until(lambda: all(one.grace for one in worker._taken))
        (first,) = [one.grace for one in worker._taken]
        for grace in (0.001, 7200, LONGEST):
            await house.control(kind="cancel", run_id="run-1", grace=grace, worker="w")
        await house.control(kind="paused", run_id="run-1")
        await house.send(task(run_id="other"))
        await slow.begins(2)
        assert [one.grace for one in worker._taken if one.grace] == [first]
        await house.control(kind="cancel", run_id="run-1", worker="w")
        assert (await house.result()).status is Status.RETURNED, "and at once is at once"
        assert first.cancelled()
        slow.go.set()


async def test_the_longest_grace_is_no_error(house, slow):
    async with house.worker(define(slow.main)):
        await house.send(task())
        await slow.begins()
        await house.control(kind="cancel", run_id="run-1", grace=LONGEST)
        slow.go.set()
        assert (await house.result()).status is Status.SUCCEEDED


async def test_what_is_cancelled_is_not_left_to_another_worker(house, slow):
    async with house.worker(define(slow.main), drain_timeout=0.01) as worker:
        await house.send(task())
        await slow.begins()
        await house.control(kind="cancel", run_id="run-1", grace=3600)
        await until(lambda: all(one.grace for one in worker._taken))
        assert await worker.stop() is True
        assert (await house.result()).status is Status.RETURNED
    assert await house.left() == 0


async def test_what_waits_behind_long_tasks_is_given_back(house, slow):
    async with house.worker(define(slow.main, concurrency=1), patience=0.1) as worker:
        running, waiting = task(), task()
        await house.send(running, waiting)
        await slow.begins()
        await lease(house, running)
        returned = await house.result()
        assert (returned.task_id, returned.status) == (waiting.task_id, Status.RETURNED)
        slow.go.set()
        assert (await house.result()).task_id == running.task_id, "it may take as long as it likes"
        assert await worker.stop() is False
    assert (slow.begun, await house.left()) == (1, 0)


async def test_what_has_to_run_alone_waits_for_its_turn(house, slow):
    suspect, running, behind = task("suspect"), task(), task()

    async def alone():
        return [], {}, ""

    async def deliver():
        consumer = house.mine.consume(house.topology.tasks("suspect"), prefetch=1)
        await consumer.receive(1)
        return consumer

    await house.mine.declare([*house.topology.standing, house.topology.tasks("suspect")])
    await house.send(suspect)
    await (await deliver()).close()  # a delivery that ended with a lost connection
    last = await deliver()
    async with house.worker(define(slow.main), define(alone, "suspect"), patience=0.1) as worker:
        await house.send(running)
        await slow.begins()
        await last.close()
        await until(lambda: len(worker._taken) == 2)
        await house.send(behind)
        returned = await house.result()
        assert (returned.task_id, returned.status) == (behind.task_id, Status.RETURNED)
        slow.go.set()
        results = await house.results(3)
        assert [(one.task_id, one.status) for one in results] == [
            (running.task_id, Status.SUCCEEDED), (suspect.task_id, Status.STARTED), (suspect.task_id, Status.SUCCEEDED),
        ]  # fmt: skip
        assert await worker.stop() is False
