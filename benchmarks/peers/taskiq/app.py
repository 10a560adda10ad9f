"""The tasks in Taskiq: pipelines of taskiq-pipelines, whose map step is followed by a task that waits for all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskiq.serializers import ORJSONSerializer
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType
from taskiq_pipelines import Pipeline, PipelineMiddleware
from taskiq_redis import RedisAsyncResultBackend

from benchmarks.peers.work import Payload, noted, passed_on

NAME = os.environ["BENCH_NAME"]
KIND = QueueType.QUORUM if os.environ["BENCH_SAFE"] == "1" else QueueType.CLASSIC
POLL = 0.1  # seconds between two looks of the task that waits for all; the default is 0.5

broker = AioPikaBroker(
    os.environ["BENCH_BROKER"],
    qos=200,
    exchange=Exchange(name=NAME),
    task_queues=[Queue(name=NAME, type=KIND)],
    dead_letter_queue=Queue(name=f"{NAME}.dead", type=KIND),
    result_backend=RedisAsyncResultBackend(os.environ["BENCH_REDIS"], result_ex_time=60)
    if "BENCH_REDIS" in os.environ
    else None,
)
broker.add_middlewares(PipelineMiddleware())
broker.with_serializer(ORJSONSerializer())


@broker.task
async def step(payload: Payload) -> Payload:
    """One of a chain."""
    return passed_on(payload)


@broker.task
async def nothing(payload: Payload) -> None:
    """A task that nothing follows from."""
    noted(payload["number"], payload["step"])


@broker.task
async def wide(payload: Payload) -> list[int]:
    """What to run side by side."""
    noted(payload["number"], 1)
    return [payload["number"]] * payload["width"]


@broker.task
async def leaf(number: int) -> int:
    """One of many."""
    noted(number, 2)
    return number


@broker.task
async def join(numbers: list[int]) -> None:
    """After all of them."""
    noted(numbers[0], 3)


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    """A client of the broker."""
    await broker.startup()
    yield
    await broker.shutdown()


async def send(kind: str, payloads: list[Payload]) -> None:
    """Send them, a hundred at a time."""
    for first in range(0, len(payloads), 100):
        await asyncio.gather(*(_send(kind, payload) for payload in payloads[first : first + 100]))


async def _send(kind: str, payload: Payload) -> None:
    match kind:
        case "chain":
            pipeline = Pipeline(broker, step)
            for _ in range(payload["steps"] - 1):
                pipeline = pipeline.call_next(step)
            await pipeline.kiq(payload)
        case "nothing":
            await nothing.kiq(payload)
        case "wide":
            await Pipeline(broker, wide).map(leaf, check_interval=POLL).call_next(join).kiq(payload)
