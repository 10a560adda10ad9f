"""What a child process may do with the client that its parent opened, on a real broker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flowkit.broker import Outgoing
from flowkit.broker.rabbit import RabbitBroker
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology


@asynccontextmanager
async def coordinator(url: str, topology: Topology) -> AsyncIterator[None]:
    """One that ends every run at once with its inputs."""
    broker = RabbitBroker(url)
    await broker.connect(10)
    await broker.declare(topology.standing)
    starts = broker.consume(topology.starts, prefetch=100)

    async def answer() -> None:
        while deliveries := await starts.receive(100):
            ends = [
                wire.RunEnded(run_id=start.run_id, node=start.node, status="succeeded", outputs=start.inputs)
                for start in (wire.decode(wire.Start, one.body) for one in deliveries)
            ]
            messages = [
                Outgoing(topology.name("runs"), "succeeded.add", end.encode(), end.TYPE, mandatory=False)
                for end in ends
            ]
            await broker.publish(messages)
            await starts.ack(deliveries)

    answering = asyncio.create_task(answer())
    try:
        yield
    finally:
        answering.cancel()
        await asyncio.wait([answering])
        await broker.close()


async def run(way: str, url: str, namespace: str) -> list[object]:
    command = (sys.executable, "-m", "tests.client.forking", way, url, namespace)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 45)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0
    return json.loads(said)


@pytest.mark.parametrize("way", ["fork", "multiprocessing"])
async def test_a_child_connects_anew_and_leaves_its_parents_connection_alone(rabbitmq_url, namespace, way):
    async with coordinator(rabbitmq_url, Topology(namespace)):
        children, parent = await run(way, rabbitmq_url, namespace)
    assert children == [[{"n": 1}, {"n": 2}]] * 3
    assert parent == [{"n": 1}, {"n": 3}]


async def test_a_child_cannot_use_an_async_client_of_its_parent_and_is_told_so(rabbitmq_url, namespace):
    async with coordinator(rabbitmq_url, Topology(namespace)):
        said, *parent = await run("async", rabbitmq_url, namespace)
    assert str(said).count("open a client in this process, after the fork") == 3
    assert parent == [{"n": 1}, {"n": 3}]
