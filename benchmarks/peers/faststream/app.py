"""The tasks in FastStream: subscribers that publish to the next queue. It has no joins."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from faststream.rabbit.schemas.queue import QueueType

from benchmarks.peers.work import Payload, noted, passed_on

SAFE = os.environ["BENCH_SAFE"] == "1"
STEPS = 5  # each has a queue of its own: a subscriber publishes to one that is named in its decorator

broker = RabbitBroker(
    os.environ["BENCH_BROKER"],
    default_channel=Channel(prefetch_count=200, publisher_confirms=SAFE),
    ack_policy=AckPolicy.NACK_ON_ERROR if SAFE else AckPolicy.ACK_FIRST,
    apply_types=False,  # no validation
    logger=None,
)
app = FastStream(broker, logger=None)


def queue(name: str) -> RabbitQueue:
    """A durable queue."""
    full = f"{os.environ['BENCH_NAME']}.{name}"
    if SAFE:
        return RabbitQueue(full, queue_type=QueueType.QUORUM, durable=True)
    return RabbitQueue(full, queue_type=QueueType.CLASSIC, durable=True)


def step() -> Callable[[Payload], Awaitable[Payload]]:
    """One of a chain."""

    async def go_on(payload: Payload) -> Payload:
        return passed_on(payload)

    return go_on


async def last(payload: Payload) -> None:
    """The end of a chain, or of a task that nothing follows from."""
    noted(payload["number"], payload["step"])


queues = [queue(f"step{number}") for number in range(1, STEPS + 1)]
for here, following in pairwise(queues):
    broker.subscriber(here)(broker.publisher(following, persist=True)(step()))
broker.subscriber(queues[-1])(last)


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    """A client that declares the queues too: nobody else is there yet."""
    await broker.connect()
    for one in queues:
        await broker.declare_queue(one)
    yield
    await broker.stop()


async def send(kind: str, payloads: list[Payload]) -> None:
    """Send them, a hundred at a time."""
    for first in range(0, len(payloads), 100):
        await asyncio.gather(*(_send(kind, payload) for payload in payloads[first : first + 100]))


async def _send(kind: str, payload: Payload) -> None:
    entry = queues[-1] if kind == "nothing" else queues[STEPS - payload["steps"]]
    await broker.publish(payload, entry, persist=True)
