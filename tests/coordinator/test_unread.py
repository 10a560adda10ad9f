"""Results and announcements that wait in a coordinator whose store is slow: nobody concludes from their absence."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from flowkit.broker import Broker, open_broker
from flowkit.coordinator import read_progress
from flowkit.flow.read_progress import ReadProgress, Verdict
from flowkit.store import open_store
from flowkit.store.protocol import Store, Transaction
from flowkit.store.views import Queries
from flowkit.wire import messages as wire
from tests.coordinator.house import House
from tests.coordinator.test_leases import LEASING
from tests.coordinator.test_overdue import SOON, TIMEOUT

T = TypeVar("T")
MANY = 8  # results, of which each coordinator gets some
LONG = 10  # seconds: longer than the other one takes to send a task, so that nobody sends it again
KEPT = 3600  # seconds: rows of coordinators are not removed
QUEUEING = replace(SOON, relay_after=LONG, progress_silence=KEPT)
SWEEPING = replace(QUEUEING, overdue_every=3600, sweep_every=0.05, progress_silence=0.5)
LEASES = replace(LEASING, lease_silence=1.2, progress_silence=KEPT, relay_after=LONG)


class SlowStore:
    """A store that answers one coordinator only while it is not stalled: its transactions take long, and none fails."""

    def __init__(self, store: Store) -> None:
        self._store, self._answers = store, asyncio.Event()
        self._answers.set()
        self.url = store.url

    def stall(self) -> None:
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        await self._answers.wait()
        return await self._store.transact(function)

    async def query(self, function: Callable[[Queries], T]) -> T:
        await self._answers.wait()
        return await self._store.query(function)

    async def close(self) -> None:
        pass


@pytest.fixture
def verdicts(monkeypatch) -> asyncio.Queue[tuple[int, Verdict]]:
    """Each judgement as it is made: of how many rows, and what it was."""
    made: asyncio.Queue[tuple[int, Verdict]] = asyncio.Queue()
    judge = read_progress.everything_committed

    def watched(before: Any, *more: Any) -> Verdict:
        verdict = judge(before, *more)
        made.put_nowait((len(before), verdict))
        return verdict

    monkeypatch.setattr(read_progress, "everything_committed", watched)
    return made


async def judged(verdicts: asyncio.Queue[tuple[int, Verdict]], rows: int, verdict: Verdict) -> None:
    """Return when the next judgement of that kind has been made."""
    while not verdicts.empty():
        verdicts.get_nowait()
    async with asyncio.timeout(20):
        while await verdicts.get() != (rows, verdict):
            pass


@contextlib.asynccontextmanager
async def two_coordinators(house: House, store: Store, pace: Any, broker: Broker) -> AsyncIterator[SlowStore]:
    """Two of them; the store of the second one can be stalled, which ends with the block."""
    slow = SlowStore(store)
    second = House(broker, slow, house.topology)
    async with house.coordinator(name="well", pace=pace), second.coordinator(name="slow", pace=pace):
        try:
            yield slow
        finally:
            slow.answer()


async def announce(house: House, tasks: list[wire.Task] = (), **more: Any) -> None:
    running = tuple(wire.Running(task.task_id, task.attempt, time.time(), task.run_id) for task in tasks)
    node = {"name": "slow", **more}
    told = wire.Worker(worker="w", nodes=(wire.NodeInfo(**node),), running=running)
    await house.publish("workers", "", told.encode(), durable=False)


async def announced_to_both(house: House, tasks: list[wire.Task] = ()) -> None:
    """Announce the node often enough for each of two coordinators to know its ``queue_timeout``."""
    for _ in range(4):
        await announce(house, tasks, queue_timeout=TIMEOUT)
    await house.until(lambda queries: queries.node_infos(), "an announcement")


async def taken(house: House) -> list[wire.Task]:
    """Tasks of as many runs, taken by a worker."""
    for number in range(MANY):
        await house.start("slow", f"r{number}")
    tasks = await house.tasks("slow", MANY)
    for number in range(MANY):
        await house.until(lambda queries, n=number: queries.tasks(f"r{n}")[0].sent_at, "it is marked as sent")
    return tasks


async def answered_into_the_slow_one(house: House, tasks: list[wire.Task], slow: SlowStore) -> None:
    """Answer all tasks and leave; the slow coordinator gets some of the results, and holds them."""
    slow.stall()
    for task in tasks:
        await house.answer(task, attempt=task.attempt)
    await house.leave("slow")  # until now it may have had the tasks: it announces nothing
    await house.until(lambda queries: len(_ended(queries)) > 0, "the other coordinator commits its part")
    async with asyncio.timeout(10):
        while (await house.broker.inspect(house.topology.results.name)).ready:
            await asyncio.sleep(0.01)


async def all_succeed(house: House) -> None:
    for number in range(MANY):
        run = await house.run_ended(f"r{number}")
        assert run.status == "succeeded", run.error
        (row,) = await house.rows(f"r{number}")
        assert (row.attempt, row.deaths) == (1, 0)


def _ended(queries: Queries) -> list[str]:
    found = [queries.run(f"r{number}") for number in range(MANY)]
    return [run.id for run in found if run is not None and run.ended_at is not None]


async def no_result_is_lost_by_a_queue_timeout(house: House, store: Store, verdicts: Any, broker: Broker) -> None:
    async with two_coordinators(house, store, QUEUEING, broker) as slow:
        tasks = await taken(house)
        await announced_to_both(house, tasks)
        await answered_into_the_slow_one(house, tasks, slow)
        for _ in range(3):
            await judged(verdicts, 2, Verdict.UNDECIDED)
        assert len(await house.store.query(_ended)) < MANY
        slow.answer()
        await all_succeed(house)
        await house.start("slow", "later")  # and from then on it is judged again
        assert (await house.run_ended("later")).status == "failed"


async def test_a_result_in_a_slow_coordinator_is_not_failed_by_queue_timeout(house, verdicts):
    broker = open_broker(house.broker.url)
    await no_result_is_lost_by_a_queue_timeout(house, house.store, verdicts, broker)
    await broker.close()


async def test_nor_on_real_services(real_house, postgres_database, verdicts):
    reached = await open_store(postgres_database)
    try:
        await no_result_is_lost_by_a_queue_timeout(real_house, reached, verdicts, real_house.broker)
    finally:
        await reached.close()


async def test_a_task_whose_result_is_in_a_slow_coordinator_is_not_sent_again(house, verdicts):
    broker = open_broker(house.broker.url)
    async with two_coordinators(house, house.store, SWEEPING, broker) as slow:
        await answered_into_the_slow_one(house, await taken(house), slow)
        for _ in range(3):  # the row of the slow one was removed, and its consumer is still there
            await judged(verdicts, 1, Verdict.NO)
        slow.answer()
        await all_succeed(house)
        assert (await house.broker.inspect(house.topology.tasks("slow").name)).ready == 0
    await broker.close()


async def test_a_lease_whose_result_is_in_a_slow_coordinator_does_not_end(house, verdicts):
    broker = open_broker(house.broker.url)
    async with two_coordinators(house, house.store, LEASES, broker) as slow:
        tasks = await taken(house)

        def leased(queries: Queries) -> bool:
            return all(queries.tasks(task.run_id)[0].leased_until for task in tasks)

        async with asyncio.timeout(10):
            while not await house.store.query(leased):
                await announce(house, tasks)
        await answered_into_the_slow_one(house, tasks, slow)
        for _ in range(3):
            await judged(verdicts, 2, Verdict.UNDECIDED)
        slow.answer()
        await all_succeed(house)
    await broker.close()


async def test_a_coordinator_that_was_killed_delays_judgements_for_a_bounded_time(house, verdicts):
    broker = open_broker(house.broker.url)
    async with two_coordinators(house, house.store, replace(SOON, progress_silence=1), broker) as slow:
        await announced_to_both(house)
        slow.stall()  # as after kill -9: its connection is gone, and it never writes its row again
        broker.go_down()
        await house.start("slow", "r")
        await judged(verdicts, 2, Verdict.NO)
        async with asyncio.timeout(5):
            assert (await house.run_ended("r")).status == "failed"
        broker.come_back()
    await broker.close()


async def test_a_coordinator_that_stopped_delays_nothing(house):
    async with house.coordinator(name="well", pace=replace(SOON, progress_silence=KEPT)):
        async with house.coordinator(name="stopped", pace=SOON):
            await announced_to_both(house)
        await house.start("slow", "r")
        assert (await house.run_ended("r")).status == "failed"


async def test_who_is_alone_needs_no_row_of_one_that_was_killed(house):
    lost = ReadProgress(uuid4(), "killed", 7, 1, 5)
    await house.store.transact(lambda transaction: transaction.record_progress(lost))
    async with house.coordinator(pace=replace(SOON, progress_silence=3600), alone=True):
        await announce(house, queue_timeout=TIMEOUT)
        await house.until(lambda queries: queries.node_infos(), "an announcement")
        await house.start("slow", "r")
        assert (await house.run_ended("r")).status == "failed"


async def test_a_consumer_without_a_row_is_said_and_nothing_is_concluded(house, verdicts, caplog):
    """An older coordinator, or somebody's own consumer."""
    async with house.coordinator(pace=SOON):
        stranger = house.broker.consume(house.topology.workers, prefetch=1)
        await stranger.wait_connected()
        await announce(house, queue_timeout=TIMEOUT)
        await announce(house, queue_timeout=TIMEOUT)
        await house.until(lambda queries: queries.node_infos(), "an announcement")
        await house.start("slow", "r")
        for _ in range(3):
            await judged(verdicts, 1, Verdict.NO)
        assert caplog.text.count("has 2 consumers, and 1 coordinators have a row") == 1
        await stranger.close()
        assert (await house.run_ended("r")).status == "failed"
