"""An address that is moved to another broker while the former one lives on: connections may lead to both at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from flowkit.broker import open_broker
from flowkit.coordinator import Coordinator
from flowkit.store import open_store
from flowkit.wire.topology import Topology
from tests.coordinator.house import FAST, House
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ


@pytest.fixture(scope="module")
def other_rabbitmq(private_rabbitmq_server) -> Iterator[RabbitMQ]:
    other = RabbitMQ()
    try:
        other.start()
        yield other
    finally:
        other.close()


def close_connection(rabbit: RabbitMQ, name: str) -> int:
    """Close the connections that have this name; returns how many."""
    found = [
        line.split("\t")[0]
        for line in rabbit.ctl("list_connections", "pid", "client_properties").splitlines()
        if f'"{name}"' in line
    ]
    for pid in found:
        rabbit.ctl("close_connection", pid, "test")
    return len(found)


@pytest.mark.parametrize("first", ["flowkit publish", "flowkit consume", "flowkit ask"])
async def test_all_connections_follow_the_first_that_leads_to_another_broker(
    private_rabbitmq_server, other_rabbitmq, tmp_path, namespace, first
):
    store, topology = await open_store(f"sqlite:///{tmp_path}/flowkit.db"), Topology(namespace)
    async with Proxy(private_rabbitmq_server.port) as proxy:
        broker, there = open_broker(f"amqp://guest:guest@127.0.0.1:{proxy.port}/"), open_broker(other_rabbitmq.url)
        coordinator = Coordinator(broker, store, topology, name="c1", pace=FAST, alone=True)
        running = asyncio.create_task(coordinator.run())
        await coordinator.wait_ready()
        here = open_broker(private_rabbitmq_server.url)
        before, after = House(here, store, topology), House(there, store, topology)
        await before.start("a", "r")
        await before.until(lambda queries: [task for task in queries.tasks("r") if task.sent_at], "it is sent")
        proxy.lead_to(other_rabbitmq.port)
        assert await asyncio.to_thread(close_connection, private_rabbitmq_server, first)
        async with asyncio.timeout(40):
            while await there.missing(topology.standing):
                await asyncio.sleep(0.1)
            (task,) = await after.tasks("a")
            assert task.run_id == "r"
            await after.answer(task)
        assert (await after.run_ended("r")).status == "succeeded"
        coordinator.stop()
        await running
        await asyncio.gather(before.close(), after.close())
        await asyncio.gather(*(one.close() for one in (broker, there, here)))
    await store.close()
