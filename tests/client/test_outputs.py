"""The end of a run as a real coordinator announces it, and what its client makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from flowkit.broker.memory import MemoryBroker
from flowkit.client import Client
from flowkit.errors import OutputsTooLarge
from flowkit.store import open_store
from flowkit.wire.topology import Topology
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
