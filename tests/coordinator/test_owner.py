"""One broker has one owner: a store, and the broker decides which."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from flowkit.broker import open_broker
from flowkit.broker.memory import MemoryBroker
from flowkit.coordinator import Coordinator
from flowkit.coordinator.identity import Identity
from flowkit.errors import AccessRefused, WrongBroker
from flowkit.store import open_store
from flowkit.wire.topology import Topology
from tests.coordinator.house import FAST, House

OFTEN = replace(FAST, standing_every=0.2)
NEVER = replace(FAST, standing_every=3600)


@contextlib.asynccontextmanager
async def house_of(url: str, namespace: str, folder, name: str) -> AsyncIterator[House]:
    """A house with a connection and a store of its own."""
    broker, store = open_broker(url), await open_store(f"sqlite:///{folder}/{name}.db")
    house = House(broker, store, Topology(namespace))
    try:
        yield house
    finally:
        await house.close()
        await store.close()
        await broker.close()


@pytest.fixture(params=["memory", "rabbitmq"])
async def houses(request, namespace, tmp_path) -> AsyncIterator[tuple[House, House]]:
    """Two houses with different stores on one new broker."""
    url = f"memory:{uuid4().hex}" if request.param == "memory" else request.getfixturevalue("rabbitmq_url")
    async with (
        house_of(url, namespace, tmp_path, "first") as first,
        house_of(url, namespace, tmp_path, "second") as second,
    ):
        yield first, second


async def store_id(house: House) -> str:
    return await house.store.query(lambda queries: queries.meta("id"))


async def is_sent(house: House, run_id: str) -> None:
    await house.until(lambda queries: [row for row in queries.tasks(run_id) if row.sent_at], "the mark of being sent")


async def begin(house: House) -> None:
    async with house.coordinator():
        pass


async def test_of_two_stores_that_begin_at_the_same_moment_one_is_the_owner(houses):
    claims: list[Coordinator] = [
        Coordinator(house.broker, house.store, house.topology, name="c", pace=NEVER) for house in houses
    ]
    running = [asyncio.create_task(one.run()) for one in claims]
    ready = [asyncio.create_task(one.wait_ready()) for one in claims]
    async with asyncio.timeout(20):
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        (loser,) = [task for task in running if task.done()]
        with pytest.raises(WrongBroker, match="--take-over"):
            await loser
        await ready[1 - running.index(loser)]
        for coordinator, waiting in zip(claims, ready, strict=True):
            coordinator.stop()
            waiting.cancel()
        await asyncio.wait(running)


async def test_the_former_owner_is_refused_when_it_comes_back(houses):
    first, second = houses
    await begin(first)
    async with second.coordinator(take_over=True):
        with pytest.raises(WrongBroker):
            await begin(first)
    with pytest.raises(WrongBroker):
        await begin(first)
    await begin(second)
    async with first.coordinator(take_over=True):
        pass
    with pytest.raises(WrongBroker):
        await begin(second)


async def test_a_takeover_ends_the_coordinators_of_the_former_owner_and_waits_for_them(houses):
    first, second = houses
    former = Coordinator(first.broker, first.store, first.topology, name="c1", pace=OFTEN)
    ending = asyncio.create_task(former.run())
    await former.wait_ready()
    async with second.coordinator(take_over=True, pace=replace(FAST, standing_every=2)):
        assert ending.done(), "a result of the new owner would have been taken by the former one"
        with pytest.raises(WrongBroker):
            await ending
        await second.start("a", "r1")
        (task,) = await second.tasks("a")
        await second.answer(task)
        assert (await second.run_ended("r1")).status == "succeeded"


async def test_a_coordinator_that_took_over_ends_when_it_is_taken_over_itself(houses):
    first, second = houses
    former = Coordinator(first.broker, first.store, first.topology, name="c1", pace=OFTEN, take_over=True)
    ending = asyncio.create_task(former.run())
    await former.wait_ready()
    async with second.coordinator(take_over=True, pace=OFTEN):
        with pytest.raises(WrongBroker):
            await ending


async def test_what_a_taken_over_broker_had_of_a_store_is_sent_to_it_again(houses):
    first, second = houses
    async with first.coordinator():
        await first.start("a", "r1", inputs={"x": 1})
        await is_sent(first, "r1")
    await first.broker.delete(first.topology.tasks("a").name)
    async with second.coordinator(take_over=True):
        pass
    async with first.coordinator(take_over=True):
        (task,) = await first.tasks("a")
        assert task.inputs == {"x": 1}
        await first.answer(task)
        await first.run_ended("r1")


async def test_a_broker_with_the_markers_of_an_earlier_version_stays_its_stores(houses):
    first, second = houses
    await begin(first)
    await first.broker.delete(first.topology.owner(await store_id(first)).name)
    await first.broker.declare([first.topology.marker(await store_id(first)), first.topology.marker()])
    await first.store.transact(lambda transaction: transaction.set_meta("owner", ""))
    with pytest.raises(WrongBroker):
        await begin(second)
    refills = await first.store.query(lambda queries: queries.meta("refills"))
    await begin(first)
    assert await first.store.query(lambda queries: queries.meta("refills")) == refills
    assert await first.broker.missing([first.topology.owner(await store_id(first))]) == []
    with pytest.raises(WrongBroker):
        await begin(second)


async def test_an_old_marker_says_nothing_once_the_broker_was_claimed_otherwise(houses):
    first, _ = houses
    await begin(first)
    refills = await first.store.query(lambda queries: queries.meta("refills"))
    await first.broker.delete(first.topology.owner(await store_id(first)).name)
    await first.broker.declare([first.topology.marker(await store_id(first)), first.topology.marker()])
    await begin(first)
    assert await first.store.query(lambda queries: queries.meta("refills")) != refills


async def test_definitions_imported_into_a_wiped_broker_do_not_hide_the_wipe(houses):
    first, _ = houses
    async with first.coordinator():
        await first.start("a", "r1", inputs={"x": 1})
        await is_sent(first, "r1")
    owner = first.topology.owner(await store_id(first))
    for queue in (owner, first.topology.tasks("a")):  # with their messages, as in a wipe
        await first.broker.delete(queue.name)
        await first.broker.declare([queue])
    async with first.coordinator():
        (task,) = await first.tasks("a")
        assert task.inputs == {"x": 1}
        await first.answer(task)
        await first.run_ended("r1")


async def test_a_login_that_may_not_declare_the_owner_ends_with_what_to_do(house, monkeypatch):
    owner, declare = house.topology.owner(await store_id(house)), MemoryBroker.declare

    async def restricted(self, parts):
        parts = list(parts)
        await declare(self, [part for part in parts if part != owner])
        return [part for part in parts if part == owner]

    monkeypatch.setattr(MemoryBroker, "declare", restricted)
    with pytest.raises(AccessRefused, match="rights of a coordinator"):
        await begin(house)


async def test_a_takeover_that_another_store_wins_is_tried_again(houses, monkeypatch):
    first, second = houses
    await begin(first)
    mark, owner, lost = Identity._mark, first.topology.owner(await store_id(first)), []

    async def late(self):
        if not lost:
            lost.append(True)
            await first.broker.declare([owner])  # as a coordinator of the former owner that finds it deleted
        return await mark(self)

    monkeypatch.setattr(Identity, "_mark", late)
    async with second.coordinator(take_over=True):
        pass
    with pytest.raises(WrongBroker):
        await begin(first)
