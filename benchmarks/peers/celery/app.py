"""The tasks in Celery: a chain of signatures, a chord."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from celery import Celery, chain, chord

from benchmarks.peers.work import Payload, noted, passed_on

SAFE = os.environ["BENCH_SAFE"] == "1"

app = Celery("benchmark", broker=os.environ["BENCH_BROKER"].replace("amqp://", "pyamqp://"))
app.conf.update(
    task_default_queue=os.environ["BENCH_NAME"],
    task_default_exchange=os.environ["BENCH_NAME"],
    task_default_routing_key=os.environ["BENCH_NAME"],
    task_acks_late=SAFE,
    task_reject_on_worker_lost=SAFE,
    broker_transport_options={"confirm_publish": SAFE},
    worker_prefetch_multiplier=50,  # short tasks: its guide on optimizing says 50 to 150
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    result_backend=os.environ.get("BENCH_REDIS"),
    result_expires=60,
)


@app.task
def step(payload: Payload) -> Payload:
    """One of a chain."""
    return passed_on(payload)


@app.task
def nothing(payload: Payload) -> None:
    """A task that nothing follows from."""
    noted(payload["number"], payload["step"])


@app.task
def wide(payload: Payload) -> None:
    """Run many side by side, then one."""
    noted(payload["number"], 1)
    chord((leaf.s(payload["number"]) for _ in range(payload["width"])), join.si(payload["number"])).delay()


@app.task(ignore_result=False)  # a chord counts results
def leaf(number: int) -> int:
    """One of many."""
    noted(number, 2)
    return number


@app.task
def join(number: int) -> None:
    """After all of them."""
    noted(number, 3)


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    """Celery connects when it sends."""
    yield


async def send(kind: str, payloads: list[Payload]) -> None:
    """Send them one by one, as Celery does."""
    for payload in payloads:
        match kind:
            case "chain":
                chain(step.s(payload), *(step.s() for _ in range(payload["steps"] - 1))).delay()
            case "nothing":
                nothing.delay(payload)
            case "wide":
                wide.delay(payload)
