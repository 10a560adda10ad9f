"""The tasks in Dramatiq: a pipeline, a group with a completion callback."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend

from benchmarks.peers.work import Payload, noted, passed_on

SAFE = os.environ["BENCH_SAFE"] == "1"
NAME = os.environ["BENCH_NAME"]

broker = RabbitmqBroker(url=os.environ["BENCH_BROKER"], confirm_delivery=SAFE)
if "BENCH_REDIS" in os.environ:
    broker.add_middleware(GroupCallbacks(RedisBackend(url=os.environ["BENCH_REDIS"])))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=NAME)
def step(payload: Payload) -> Payload:
    """One of a chain."""
    return passed_on(payload)


@dramatiq.actor(queue_name=NAME)
def nothing(payload: Payload) -> None:
    """A task that nothing follows from."""
    noted(payload["number"], payload["step"])


@dramatiq.actor(queue_name=NAME)
def wide(payload: Payload) -> None:
    """Run many side by side, then one."""
    noted(payload["number"], 1)
    group = dramatiq.group([leaf.message(payload["number"]) for _ in range(payload["width"])])
    group.add_completion_callback(join.message(payload["number"]))
    group.run()


@dramatiq.actor(queue_name=NAME)
def leaf(number: int) -> None:
    """One of many."""
    noted(number, 2)


@dramatiq.actor(queue_name=NAME)
def join(number: int) -> None:
    """After all of them."""
    noted(number, 3)


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    """Dramatiq connects when it sends."""
    yield


async def send(kind: str, payloads: list[Payload]) -> None:
    """Send them one by one, as Dramatiq does."""
    for payload in payloads:
        match kind:
            case "chain":
                dramatiq.pipeline([step.message(payload), *(step.message() for _ in range(payload["steps"] - 1))]).run()
            case "nothing":
                nothing.send(payload)
            case "wide":
                wide.send(payload)
