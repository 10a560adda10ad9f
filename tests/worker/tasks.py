"""Tasks, definitions and a sink for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

from flowkit.node import Node
from flowkit.wire.messages import Task


class Lines:
    """A sink that keeps what is written."""

    crowded = False

    def __init__(self):
        self.written = []

    def write(self, task, level, message, context=None, exception=None):
        self.written.append((task, level, message, context, exception))

    async def flush(self, timeout):
        pass


def task(node="work", *, id: UUID | None = None, **fields) -> Task:
    return Task(task_id=id or uuid4(), run_id=fields.pop("run_id", "run-1"), node=node, **fields)


def define(main, name="work", **options):
    node = Node(name, **options)
    node.register_main(main)
    return node.definition


async def lease(house, running: Task, worker="w") -> None:
    """Lease a task that runs: its message is acknowledged, so the next one is delivered, and waits for its slot."""
    names = {"run_id": running.run_id, "task_id": running.task_id, "attempt": 1}
    await house.control(kind="leased", worker=worker, **names)


async def until(condition: Callable[[], object]) -> None:
    """Wait until this holds, which no signal tells."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
