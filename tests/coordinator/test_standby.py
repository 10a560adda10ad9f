"""A coordinator that cannot reach its store holds up nothing that another one could process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from flowkit.broker import open_broker
from flowkit.errors import StoreUnreachable
from flowkit.store import open_store
from flowkit.store.protocol import Store, Transaction
from flowkit.store.views import Queries
from tests.coordinator.house import FAST, House

T = TypeVar("T")
PACE = replace(FAST, standby_after=0.1, relay_after=10)  # longer than the other one takes to send
MANY = 40


class CutOff:
    """A store that one coordinator cannot reach while ``away``."""

    def __init__(self, store: Store) -> None:
        self._store, self.away = store, False
        self.url = store.url

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        self._reach()
        return await self._store.transact(function)

    async def query(self, function: Callable[[Queries], T]) -> T:
        self._reach()
        return await self._store.query(function)

    async def close(self) -> None:
        pass

    def _reach(self) -> None:
        if self.away:
            raise StoreUnreachable(self.url, "connection refused")


async def others_process_all(house: House, second: House, store: CutOff) -> None:
    """Cut the second coordinator off from its store while both consume; all runs end while it is cut off."""
    async with house.coordinator(name="well", pace=PACE), second.coordinator(name="cut-off", pace=PACE) as cut_off:
        store.away = True
        runs = [f"r{number}" for number in range(MANY)]
        for run_id in runs:
            await house.start("a", run_id)
        for task in await house.tasks("a", MANY):
            await house.answer(task)
        for run_id in runs:
            assert (await house.run_ended(run_id)).status == "succeeded"
        assert not cut_off.ready
        store.away = False
        await second.until(lambda _: cut_off.ready, "its store answers")


async def test_a_coordinator_whose_store_is_away_gives_back_what_it_holds(house):
    store = CutOff(house.store)
    broker = open_broker(house.broker.url)
    await others_process_all(house, House(broker, store, house.topology), store)
    await broker.close()


async def test_a_single_coordinator_goes_on_when_its_store_answers_again(house):
    store = CutOff(house.store)
    broker = open_broker(house.broker.url)
    async with House(broker, store, house.topology).coordinator(pace=PACE):
        for number in range(3):
            store.away = True
            if number == 0:
                await house.start("a", "r1")
            async with asyncio.timeout(5):
                while (await house.broker.inspect(house.topology.starts.name)).consumers:
                    await asyncio.sleep(0.01)
            store.away = False
            async with asyncio.timeout(10):
                while not (await house.broker.inspect(house.topology.starts.name)).consumers:
                    await asyncio.sleep(0.01)
        (task,) = await house.tasks("a")
        await house.answer(task)
        assert (await house.run_ended("r1")).status == "succeeded"
    assert await house.store.query(lambda queries: queries.dead(limit=1)) == []
    await broker.close()


async def test_a_real_broker_gives_the_messages_to_the_other_coordinator(real_house, postgres_database):
    reached = await open_store(postgres_database)
    store = CutOff(reached)
    try:
        await others_process_all(real_house, House(real_house.broker, store, real_house.topology), store)
    finally:
        await reached.close()
