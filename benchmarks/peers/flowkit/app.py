"""Sends work to FlowKit: runs through its client, single tasks straight to their node's queue."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from benchmarks.peers.work import Payload
from flowkit import Client
from flowkit.broker import Outgoing, open_broker
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

URL, NAME = os.environ["BENCH_BROKER"], os.environ["BENCH_NAME"]
NODES = {"chain": "step", "wide": "wide"}
SINGLE = ("nothing", "chatty")
AT_ONCE = 10_000
_clients: list[Client] = []


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    """A client that declares what a coordinator would: it is not there yet."""
    broker = open_broker(URL)
    await broker.connect(10)
    topology = Topology(NAME)
    await broker.declare([*topology.standing, *(topology.tasks(node) for node in SINGLE)])
    await broker.close()
    async with Client(URL, namespace=NAME, listen=False) as client:
        _clients.append(client)
        yield


async def send(kind: str, payloads: list[Payload]) -> None:
    """Send them, ten thousand at a time."""
    for first in range(0, len(payloads), AT_ONCE):
        some = payloads[first : first + AT_ONCE]
        await (_tasks(kind, some) if kind in SINGLE else _clients[0].start_many(NODES[kind], some))


async def _tasks(node: str, payloads: list[Payload]) -> None:
    """Tasks as a coordinator sends them, while it is not there."""
    broker = open_broker(URL)
    await broker.connect(10)
    tasks = [
        wire.Task(task_id=uuid4(), run_id=f"{node}-{payload['number']}", node=node, inputs=payload, attempt=1, tries=1)
        for payload in payloads
    ]
    exchange = Topology(NAME).name("tasks")
    refused = await broker.publish([Outgoing(exchange, node, task.encode(), wire.Task.TYPE) for task in tasks])
    assert not any(refused), refused
    await broker.close()
