"""Leases and what is said again, through the real coordinator and store; the test is the worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.coordinator.house import FAST

LEASING = replace(FAST, lease_after=0, lease_silence=0.6)
LATER = replace(FAST, lease_silence=3600)
W1 = "w1"


async def announce_once(house, *running):
    """``running``: a task, and when it began."""
    entries = tuple(wire.Running(task.task_id, task.attempt, since, task.run_id) for task, since in running)
    told = wire.Worker(worker=W1, nodes=(wire.NodeInfo(name="a"),), running=entries)
    await house.publish("workers", "", told.encode(), durable=False)


async def announce(house, *running):
    """Twice, as a worker does that goes on with it."""
    await announce_once(house, *running)
    await heard(house)
    await announce_once(house, *running)


async def heard(house, worker=W1):
    """Return when everything announced was answered: a later announcement of somebody else was."""
    mark = uuid4().hex
    await house.publish("workers", "", wire.Worker(worker=mark).encode(), durable=False)
    await house.until(lambda queries: [row for row in queries.workers(seen_since=0) if row.name == mark], "the mark")


@contextlib.asynccontextmanager
async def ear(house, worker=W1):
    """What a worker hears."""
    consumer = house.broker.consume(house.topology.control(worker), prefetch=100)
    await consumer.wait_connected()

    async def hear(count=1) -> list[wire.Control]:
        found = []
        async with asyncio.timeout(5):
            while len(found) < count:
                deliveries = await consumer.receive(count - len(found))
                await consumer.ack(deliveries)
                found += [wire.decode(wire.Control, delivery.body) for delivery in deliveries]
        return found

    yield hear
    await consumer.close()


async def began(house, run_id="r1"):
    await house.start("a", run_id)
    (task,) = await house.tasks("a")
    return task


async def row(house, run_id="r1"):
    return (await house.rows(run_id))[0]


async def command(house, kind, run_id="r1", **more):
    await house.publish("commands", kind, {"id": str(uuid4()), "kind": kind, "run_id": run_id, **more})


async def test_a_long_task_is_leased_when_the_store_has_it_and_not_before(house):
    async with house.coordinator(pace=replace(LATER, lease_after=300)), ear(house) as hear:
        task, now = await began(house), time.time()
        await announce(house, (task, now - 400))
        await heard(house)
        assert (await row(house)).leased_until is None, "it was sent a moment ago: that clock is wrong"
        await house.until(lambda queries: queries.tasks("r1")[0].sent_at, "the mark of its confirm")
        await house.store.transact(lambda tx: tx.mark_sent([("r1", task.task_id, 1)], now - 400))
        await announce(house, (task, now - 200))
        await heard(house)
        assert (await row(house)).leased_until is None
        await announce(house, (task, now - 301))
        (told,) = await hear()
        assert told == wire.Control(kind="leased", run_id="r1", task_id=task.task_id, attempt=1, worker=W1)
        leased = await row(house)
        assert (leased.status, leased.worker, leased.attempt) == ("running", W1, 1)
        assert leased.leased_until > now + 3000
        await announce(house, (task, now - 301))
        await heard(house)
        assert (await row(house)).leased_until == leased.leased_until, "rows are not written at every announcement"
        await house.answer(task, [], {"x": 1}, attempt=1)
        assert codec.loads((await house.run_ended("r1")).outputs) == {"x": 1}


async def test_what_never_said_of_which_run_it_is_is_not_leased(house):
    async with house.coordinator(pace=LEASING):
        task = await began(house)
        old = {"worker": W1, "running": [[str(task.task_id), 1, 1.0], ["0" * 32, 1, None]]}
        for _ in range(3):
            await house.publish("workers", "", old, durable=False)
            await heard(house)
        assert (await row(house)).leased_until is None


async def test_a_task_whose_worker_fell_silent_is_sent_again(house):
    async with house.coordinator(pace=LEASING), ear(house) as hear:
        task = await began(house)
        for attempt in (1, 2):
            await announce(house, (task, time.time()))
            assert (await hear())[0].kind == "leased"
            (cancel,) = await hear()
            assert (cancel.kind, cancel.task_id, cancel.attempt) == ("cancel", task.task_id, attempt)
            (again,) = await house.tasks("a")
            assert (again.task_id, again.attempt, again.tries) == (task.task_id, attempt + 1, 1)
            assert (await row(house)).deaths == attempt
            await house.answer(task, [], {"late": True}, attempt=attempt)
            task = again
        await announce(house, (task, time.time()))
        assert "3 processes died" in (await house.run_ended("r1")).message
        late = await house.store.query(lambda queries: queries.superseded("r1"))
        assert [reason for *_, reason, _ in late] == [
            "attempt 1 is not the current one (2)", "attempt 2 is not the current one (3)",
        ]  # fmt: skip


async def test_a_worker_that_speaks_keeps_its_task(house):
    async with house.coordinator(pace=LEASING), ear(house) as hear:
        task, since = await began(house), time.time()
        for _ in range(4):  # each renewal a third of the silence after the one before, together longer than it
            await announce(house, (task, since))
            while (await hear())[0].kind != "leased":
                pass
            until = (await row(house)).leased_until
            await asyncio.sleep(until - time.time() - 0.39)
        assert (await row(house)).attempt == 1


async def test_silence_counts_only_while_somebody_listens(house, monkeypatch):
    from flowkit.coordinator.silence import Silence

    looks = asyncio.Queue()
    real = Silence.look

    async def look(self):
        self._since = self._looked if heavy.is_set() else self._since
        found = await real(self)
        looks.put_nowait(found)
        return found

    heavy = asyncio.Event()
    heavy.set()
    monkeypatch.setattr(Silence, "look", look)
    async with house.coordinator(pace=LEASING):
        task = await began(house)
        await announce(house, (task, time.time()))
        await house.until(lambda queries: queries.tasks("r1")[0].leased_until, "the lease")
        since = time.time()
        while time.time() < since + 1:  # longer than the silence, and interrupted again and again
            house.broker.disconnect()
            assert await looks.get() == 0
        assert (await row(house)).attempt == 1
        heavy.clear()
        (again,) = await house.tasks("a")
        assert again.attempt == 2
        assert time.time() >= since + 1 + 0.5, "and then it is listened to for as long as it must last"


@pytest.mark.parametrize("queue", ["results", "workers"])
async def test_what_waits_to_be_read_may_be_a_word_of_the_task(house, monkeypatch, queue):
    from flowkit.broker.protocol import QueueState
    from flowkit.coordinator.silence import Silence

    async def always(self):
        return True

    looked = asyncio.Event()
    waiting = QueueState(ready=1, consumers=1)
    inspect = house.broker.inspect

    async def crowded(name):
        if name == getattr(house.topology, queue).name:
            looked.set()
            return waiting
        return await inspect(name)

    monkeypatch.setattr(house.broker, "inspect", crowded)
    monkeypatch.setattr(Silence, "_has_listened", always)
    async with house.coordinator(pace=LEASING):
        task = await began(house)
        await announce(house, (task, time.time()))
        await house.until(lambda queries: queries.tasks("r1")[0].leased_until, "the lease")
        for _ in range(3):
            looked.clear()
            await looked.wait()
        assert (await row(house)).attempt == 1
        waiting = QueueState(ready=0, consumers=1)
        (again,) = await house.tasks("a")
        assert again.attempt == 2


async def test_an_alarm_of_the_broker_silences_workers_that_live(house, monkeypatch):
    from flowkit.coordinator.silence import Silence

    looks, real = asyncio.Queue(), Silence.look

    async def look(self):
        looks.put_nowait(await real(self))
        return 0

    monkeypatch.setattr(Silence, "look", look)
    async with house.coordinator(pace=LEASING):
        task = await began(house)
        await announce(house, (task, time.time()))
        until = await house.until(lambda queries: queries.tasks("r1")[0].leased_until, "the lease")
        house.broker.block()
        while time.time() < until + 0.3:
            assert await looks.get() == 0
        house.broker.unblock()
        await announce(house, (task, time.time()))
        await house.until(lambda queries: queries.tasks("r1")[0].leased_until > until, "the next lease")
        assert (await row(house)).attempt == 1


async def test_a_coordinator_that_comes_back_listens_before_it_judges(house):
    async with house.coordinator(pace=LEASING):
        task = await began(house)
        await announce(house, (task, time.time()))
        await house.until(lambda queries: queries.tasks("r1")[0].leased_until, "the lease")
    await asyncio.sleep(0.7)  # nobody listens: the lease is over
    async with house.coordinator(pace=LEASING):
        await announce(house, (task, time.time()))
        await heard(house)
        assert (await row(house)).attempt == 1
        assert (await row(house)).leased_until > time.time()


async def test_a_wiped_broker_does_not_take_leased_tasks_from_their_workers(house):
    async with house.coordinator(pace=replace(LATER, lease_after=0)):
        leased, plain = await began(house, "r1"), await began(house, "r2")
        await announce(house, (leased, time.time()))
        await house.until(lambda queries: queries.tasks("r1")[0].leased_until, "the lease")
        house.broker.wipe()
        (again,) = await house.tasks("a")
        assert again.run_id == plain.run_id == "r2"
        assert (await row(house, "r1")).leased_until is not None
        await house.answer(leased, [], {"x": 1})
        assert (await house.run_ended("r1")).status == "succeeded"


async def test_a_drained_worker_gives_a_leased_task_back(house):
    async with house.coordinator(pace=replace(LATER, lease_after=0)), ear(house) as hear:
        task = await began(house)
        await announce(house, (task, time.time()))
        await hear()
        await house.answer(task, status="returned", attempt=1)
        (again,) = await house.tasks("a")
        assert (again.attempt, (await row(house)).deaths, (await row(house)).leased_until) == (2, 0, None)


# What is said again


async def test_a_cancelled_task_that_is_still_announced_is_cancelled_again(house):
    async with house.coordinator(pace=LATER):
        task, other = await began(house), await began(house, "r2")
        async with ear(house, "w0") as hear:
            await command(house, "cancel")
            assert await hear() == [wire.Control(kind="cancel", run_id="r1")]
        async with ear(house) as hear:  # which missed it
            for _ in range(3):
                await announce_once(house, (task, time.time()), (other, time.time()))
                await heard(house)
            assert await hear(2) == [wire.Control(kind="cancel", run_id="r1", worker=W1)] * 2
            for listed in (other, task):
                await announce_once(house, (listed, time.time()))
                await heard(house)
            await command(house, "cancel", "r2")
            assert (await hear())[0].run_id == "r2", "once is nothing: a result may have overtaken the announcement"


async def test_an_older_attempt_and_an_answered_task_are_cancelled(house):
    async with house.coordinator(pace=LATER):
        old, done = await began(house), await began(house, "r2")
        await house.answer(old, status="returned", attempt=1)
        await house.tasks("a")
        await house.answer(done, ["b"])
        await house.tasks("b")
        async with ear(house) as hear:
            await announce(house, (old, time.time()), (done, None))
            told = await hear(2)
        given = {"kind": "cancel", "attempt": 1, "worker": W1}
        assert told == [wire.Control(run_id=of.run_id, task_id=of.task_id, **given) for of in (old, done)]


async def test_what_is_not_begun_in_a_paused_run_is_asked_for_again(house):
    async with house.coordinator(pace=LATER):
        begun, waiting = await began(house), await began(house, "r2")
        async with ear(house, "w0") as hear:
            for run_id in ("r1", "r2"):
                await command(house, "pause", run_id)
            assert [told.run_id for told in await hear(2)] == ["r1", "r2"]
        async with ear(house) as hear:
            await announce(house, (begun, time.time()), (waiting, None))
            assert await hear() == [wire.Control(kind="paused", run_id="r2", worker=W1)]


async def test_a_grace_is_said_again_once_with_what_is_left_also_after_a_restart(house):
    task = None
    async with house.coordinator(pace=LATER), ear(house, "w0") as hear:
        task = await began(house)
        await command(house, "cancel", grace=500)
        assert await hear() == [wire.Control(kind="cancel", run_id="r1", grace=500)]
    async with house.coordinator(pace=LATER), ear(house) as hear:
        for _ in range(4):
            await announce_once(house, (task, time.time()))
            await heard(house)
        await began(house, "r2")
        await command(house, "cancel", "r2")
        first, second = await hear(2)
        assert (first.run_id, first.worker, 400 < first.grace < 500) == ("r1", W1, True)
        assert second.run_id == "r2"


async def test_unknown_tasks_are_left_alone(house):
    async with house.coordinator(pace=replace(LATER, lease_after=0)), ear(house) as hear:
        task = await began(house)
        ghost = wire.Task(task_id=UUID(int=1), run_id="ghost", node="a")
        await announce(house, (ghost, 1.0), (task, 1.0))
        assert [told.kind for told in await hear()] == ["leased"]


async def test_two_coordinators_on_real_services_agree_about_a_silence(real_house, postgres_database):
    from flowkit.store import open_store
    from tests.coordinator.house import House

    pace = replace(LEASING, lease_silence=1.5, relay_after=10)
    store = await open_store(postgres_database)
    second = House(real_house.broker, store, real_house.topology)
    try:
        async with real_house.coordinator(name="c1", pace=pace), second.coordinator(name="c2", pace=pace):
            runs = [f"r{number}" for number in range(20)]
            await asyncio.gather(*(real_house.start("a", run) for run in runs))
            tasks = await real_house.tasks("a", len(runs))
            while not all([(await row(real_house, run)).leased_until for run in runs]):
                await announce_once(real_house, *((task, time.time()) for task in tasks))
            again = await real_house.tasks("a", len(runs))
            assert {(task.run_id, task.attempt) for task in again} == {(run, 2) for run in runs}
            for task in again:
                await real_house.answer(task, [], {}, attempt=2)
            for run in runs:
                assert (await real_house.run_ended(run)).status == "succeeded"
                assert (await row(real_house, run)).deaths == 1
    finally:
        await store.close()


# Stopping


async def test_stop_is_obeyed_while_the_broker_is_away(house):
    from flowkit.coordinator import Coordinator

    house.broker.go_down()
    coordinator = Coordinator(house.broker, house.store, house.topology, name="c1", pace=FAST)
    running = asyncio.create_task(coordinator.run())
    await house.until(lambda queries: True, "the store")
    coordinator.stop()
    async with asyncio.timeout(3):
        await running


async def test_stop_is_obeyed_while_what_was_stranded_waits_to_be_sent(house, monkeypatch):
    from flowkit.coordinator import Coordinator
    from flowkit.coordinator.relay import Relay

    looks = asyncio.Event()

    async def stuck(self, *, after=None):
        looks.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Relay, "look", stuck)
    coordinator = Coordinator(house.broker, house.store, house.topology, name="c1", pace=FAST)
    running = asyncio.create_task(coordinator.run())
    await looks.wait()
    coordinator.stop()
    async with asyncio.timeout(3):
        await running
    assert not coordinator.ready
