"""Reruns and replays asked for by a program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from flowkit.broker.memory import MemoryBroker
from flowkit.client import Client
from flowkit.errors import InvalidPayload, Refused, UsageError
from flowkit.store import open_store
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology
from tests.client.coordinator import TOPOLOGY, Coordinator
from tests.coordinator.house import House


@pytest.fixture
async def house(url) -> AsyncIterator[House]:
    """A real coordinator's house; the test is its workers."""
    broker, store = MemoryBroker.named(url.removeprefix("memory:")), await open_store("sqlite://")
    house = House(broker, store, Topology())
    yield house
    await house.close()
    await store.close()
    await broker.close()


async def test_a_rerun_is_waited_for_like_any_run(house):
    async with house.coordinator(), Client(broker=house.broker) as client:
        run = await client.start("a", {"x": 1})
        (task,) = await house.tasks("a")
        await house.answer(task, ["b"], {"y": 1})
        (second,) = await house.tasks("b")
        await house.answer(second, outputs={"z": 1})
        await run.outputs(timeout=5)
        new = await run.rerun(from_task=second.task_id, inputs={"y": 2}, id="again")
        (again,) = await house.tasks("b")
        assert (new.id, again.run_id, again.inputs) == ("again", "again", {"y": 2})
        await house.answer(again, outputs={"z": 2})
        assert await new.outputs(timeout=5) == {"z": 2}
        third = await client.run(new.id).rerun()
        (first,) = await house.tasks("a")
        assert first.inputs == {"x": 1}
        await house.answer(first, outputs={"y": 3})
        assert await third.outputs(timeout=5) == {"y": 3}


async def test_who_waits_for_a_rerun_that_is_refused_hears_why(house):
    async with house.coordinator(), Client(broker=house.broker) as client:
        run = await client.start("a", id="r")
        await house.tasks("a")
        for asked, says in (
            (run.rerun(), "it is running, not succeeded or failed or cancelled"),
            (client.run("ghost").rerun(from_task=str(uuid4())), "no run 'ghost'"),
            (run.rerun(id="r"), "exists already"),
        ):
            with pytest.raises(Refused, match=says):
                await (await asked).outputs(timeout=5)


async def test_after_a_reconnect_a_rerun_that_is_awaited_is_asked_for_again(url, coordinator):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    commands = broker.consume(TOPOLOGY.commands, prefetch=10)
    async with Client(broker=broker) as client:
        new = await client.run("r").rerun()
        (first,) = await commands.receive(1)
        await commands.ack([first])
        broker.disconnect()
        async with asyncio.timeout(5):
            (again,) = await commands.receive(1)
        assert again.body == first.body
        told = wire.RunEnded(run_id=new.id, node="whatever", status="succeeded", outputs={"x": 1})
        await coordinator.publish(told.encode(), "succeeded.whatever")
        assert await new.outputs(timeout=5) == {"x": 1}
    await commands.close()


async def test_without_listening_it_is_asked_for_and_not_awaited(url, coordinator):
    async with Client(url, listen=False) as client:
        with pytest.raises(UsageError, match="listen=False"):
            await (await client.run("r").rerun(id="new")).outputs()


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ({"from_task": "0.2"}, UsageError, "cannot rerun run r: task_id"),
        ({"id": ""}, UsageError, "cannot rerun run r: new_run_id"),
        ({"id": "a b"}, UsageError, "cannot rerun run r: new_run_id"),
        ({"inputs": {"a": {1}}}, InvalidPayload, "inputs.a: set"),
    ],
)
async def test_what_cannot_be_asked_for_is_said_before_anything_is_sent(url, words, error, says):
    async with Client(url) as client:
        with pytest.raises(error, match=says):
            await client.run("r").rerun(**words)


async def test_a_replay_names_dead_letters(url, coordinator):
    broker = MemoryBroker.named(url.removeprefix("memory:"))
    commands = broker.consume(TOPOLOGY.commands, prefetch=10)
    async with Client(broker=broker) as client:
        await client.replay(iter([17, 18]))
        (sent,) = await commands.receive(1)
        command = wire.decode(wire.Command, sent.body)
        assert (command.kind, command.run_id, command.letters) == ("replay", None, (17, 18))
        for letters in ([0], ["x"], [2**63]):
            with pytest.raises(UsageError, match=r"cannot replay these dead letters: letters\.0"):
                await client.replay(letters)
    await commands.close()


def test_the_synchronous_twin_does_the_same():
    threads = threading.active_count()
    with Client.sync(f"memory:{uuid4().hex}") as client:
        loop = client.thread()

        async def prepare():
            coordinator = Coordinator(loop.client._broker)
            await coordinator.declare()
            return coordinator

        coordinator = loop.run(prepare())
        new = client.run("r").rerun(inputs={"x": 1}, id="new")
        told = wire.RunEnded(run_id="new", node="a", status="succeeded", outputs={"y": 1})
        loop.run(coordinator.publish(told.encode(), "succeeded.a"))
        assert (new.id, new.outputs(timeout=5)) == ("new", {"y": 1})
        client.replay([1])
    assert threading.active_count() == threads
