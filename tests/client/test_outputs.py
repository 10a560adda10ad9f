"""The end of a run as a real coordinator announces it, and what its client makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from flowkit.broker.memory import MemoryBroker
from flowkit.client import Client
from flowkit.errors import Conflict, OutputsTooLarge, Refused
from flowkit.store import open_store
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology
from tests.client.coordinator import TOPOLOGY
from tests.coordinator.house import House


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A real coordinator's house, whose broker takes small messages only; the test is its workers."""
    broker, store = MemoryBroker(max_message_bytes=2_000), await open_store("sqlite://")
    house = House(broker, store, Topology())
    yield house
    await house.close()
    await store.close()
    await broker.close()


async def test_outputs_over_the_size_of_a_message_raise_with_what_to_do(house):
    async with house.coordinator(), Client(broker=house.broker) as client:
        run = await client.start("a", id="r1")
        (first,) = await house.tasks("a")
        await house.answer(first, ["b", "b"])
        for task in await house.tasks("b", 2):
            await house.answer(task, outputs={"x": "x" * 1_500})
        assert (await run.end(timeout=5)).status == "succeeded"
        with pytest.raises(
            OutputsTooLarge, match=r"run r1 succeeded, but .*limit of 2,000.*flowkit runs show r1 --json"
        ):
            await run.outputs()


async def test_a_run_without_outputs_has_empty_ones(house):
    async with house.coordinator(), Client(broker=house.broker) as client:
        run = await client.start("a")
        (task,) = await house.tasks("a")
        await house.answer(task)
        assert await run.outputs(timeout=5) == {}


@pytest.mark.parametrize("status", ["succeeded", "failed"])
async def test_the_end_of_another_run_of_that_id_is_not_the_end_of_ours(url, coordinator, status):
    """It ended before the coordinator has read our start, which it then refuses."""
    async with Client(url) as client:
        run = await client.start("add", {"n": 2}, id="x")
        (ours,) = await coordinator.starts(1)
        theirs = wire.value_fingerprint("add", {"n": 1})
        await coordinator.end(ours, status, fingerprint=theirs)
        await coordinator.end(ours, "conflict")
        with pytest.raises(Conflict, match="'x' exists already"):
            await run.outputs(timeout=5)


async def test_a_real_coordinator_says_whose_end_it_is(house):
    async with house.coordinator(), Client(broker=house.broker) as client:
        run = await client.start("a", {"m": 2.0, "n": 1}, id="x")
        (task,) = await house.tasks("a")
        await house.answer(task)
        ended = await run.end(timeout=5)
        assert (ended.fingerprint, ended.parent) == (wire.value_fingerprint("a", {"n": 1, "m": 2}), None)
        again = await run.rerun(id="y")
        (task,) = await house.tasks("a")
        await house.answer(task)
        ended = await again.end(timeout=5)
        assert (ended.fingerprint, ended.parent) == (wire.value_fingerprint("a", {"n": 1, "m": 2}), "x")


async def test_the_same_inputs_in_another_order_are_the_same_run(house):
    async with house.coordinator(), Client(broker=house.broker) as client, Client(broker=house.broker) as other:
        runs = [await client.start("a", {"n": 1, "m": 2.0}, id="x"), await client.start("a", {"m": 2, "n": 1}, id="x")]
        runs.append(await other.start("a", {"m": 2, "n": 1.0}, id="x"))
        (task,) = await house.tasks("a")
        await house.answer(task, outputs={"y": 1})
        assert await asyncio.gather(*(run.outputs(timeout=5) for run in runs)) == [{"y": 1}] * 3


async def test_the_end_of_another_run_of_that_id_is_not_the_end_of_our_rerun(url, coordinator):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    commands = broker.consume(TOPOLOGY.commands, prefetch=10)
    async with Client(url) as client:
        run = await client.run("first").rerun(id="x")
        command = wire.decode(wire.Command, (await commands.receive(1))[0].body)
        for parent in (None, "second"):
            theirs = wire.RunEnded(
                run_id="x",
                node="a",
                status="succeeded",
                outputs={},
                fingerprint="f",
                **({"parent": parent} if parent else {}),
            )
            await coordinator.publish(theirs.encode(), "succeeded.a")
        refusal = wire.RunEnded(run_id="x", node="a", status="conflict", message="a run with this id exists already")
        await coordinator.publish(refusal.encode(), "conflict.a", {wire.REFUSED: str(command.id)})
        with pytest.raises(Refused, match="exists already"):
            await run.outputs(timeout=5)
    await commands.close()


async def test_an_older_coordinator_does_not_say_with_what_a_run_began(url, coordinator):
    async with Client(url) as client:
        run = await client.start("add", {"a": 1})
        (start,) = await coordinator.starts(1)
        await coordinator.end(start, outputs={"x": 1})
        assert await run.outputs(timeout=5) == {"x": 1}
