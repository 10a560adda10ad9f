"""The faults that tests and simulations can cause in the in-memory broker."""

from __future__ import annotations

import asyncio

import pytest

from flowkit.broker import Outgoing
from flowkit.broker.memory import MemoryBroker
from flowkit.broker.memory.topics import matches
from flowkit.errors import BrokerUnreachable, NotSent
from flowkit.wire.topology import Topology

TOPOLOGY = Topology("memory")


def result(body: bytes = b"{}", **more: object) -> Outgoing:
    return Outgoing(TOPOLOGY.name("results"), "add.succeeded", body, "flowkit.test", **more)


@pytest.fixture
async def broker() -> MemoryBroker:
    broker = MemoryBroker()
    await broker.declare(TOPOLOGY.standing)
    return broker


async def test_a_name_is_one_broker_and_other_names_are_others(namespace: str) -> None:
    first, second, other = (MemoryBroker.named(name) for name in (namespace, namespace, f"{namespace}2"))
    await first.declare(TOPOLOGY.standing)
    assert await second.inspect(TOPOLOGY.results.name) is not None
    assert await other.inspect(TOPOLOGY.results.name) is None


async def test_while_it_is_down_durable_messages_wait_and_transient_ones_are_dropped(broker: MemoryBroker) -> None:
    broker.go_down()
    assert not broker.connected
    with pytest.raises(BrokerUnreachable):
        await broker.connect(timeout=0.01)
    assert [type(verdict) for verdict in await broker.publish([result(durable=False)])] == [NotSent]
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(broker.publish([result()]))
        await asyncio.sleep(0)
        assert not sending.done()
        broker.come_back()
    assert sending.result() == [None]


async def test_an_alarm_stops_publishing_and_nothing_else(broker: MemoryBroker) -> None:
    await broker.publish([result(b"1"), result(b"2")])
    consumer = broker.consume(TOPOLOGY.results, prefetch=1)
    broker.block()
    await consumer.ack(await consumer.receive(1))
    assert (await consumer.receive(1))[0].body == b"2"
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(broker.publish([result(b"3")]))
        waiting = group.create_task(broker.wait_connected())
        await asyncio.sleep(0)
        assert not sending.done()
        assert not waiting.done()
        broker.unblock()
    assert sending.result() == [None]


async def test_a_lost_confirm_publishes_twice(broker: MemoryBroker) -> None:
    broker.lose_confirms()
    assert await broker.publish([result(b"twice")]) == [None]
    state = await broker.inspect(TOPOLOGY.results.name)
    assert state is not None
    assert state.ready == 2
    assert broker.generation == 2


async def test_a_wiped_broker_knows_nothing_and_its_consumers_wait_for_the_topology(broker: MemoryBroker) -> None:
    consumer = broker.consume(TOPOLOGY.results, prefetch=5)
    await broker.publish([result()])
    held = await consumer.receive(1)
    broker.wipe()
    assert (consumer.connected, consumer.reconnects, broker.generation) == (False, 1, 2)
    assert not await broker.exists(TOPOLOGY.exchanges[0])
    await consumer.ack(held)
    await broker.declare(TOPOLOGY.standing)
    assert consumer.connected
    await broker.publish([result(b"new")])
    assert (await consumer.receive(1))[0].body == b"new"


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("#", "", True), ("#", "a.b", True), ("a.#", "a", True), ("a.#", "a.b.c", True), ("a.#", "b", False),
        ("*.b", "a.b", True), ("*.b", "b", False), ("*", "", False), ("#.b", "b", True), ("#.b.#", "a.b.c", True),
        ("a.*.c", "a.b.c", True), ("a.*.c", "a.c", False), ("", "", True), ("a", "a.b", False),
    ],
)  # fmt: skip
def test_topics_match_as_in_amqp(pattern: str, key: str, fits: bool) -> None:
    assert matches(pattern, key) is fits
