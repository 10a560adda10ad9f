"""What a small task costs a worker, without AMQP: decode, take a turn, run, encode, report, acknowledge.

    python -m benchmarks.worker_cost [same | thread]… [--tasks 5000] [--lines 0] [--rounds 3]

One worker takes tasks from a queue that is full, in the loop of its connection or, as ``flowkit worker`` does, with the
nodes in a thread. The broker is a stub in memory that confirms at once and counts. Printed are CPU microseconds a task
of the whole process, the best of some rounds, and how many results shared a message.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

from flowkit import Logger, Node
from flowkit.broker.protocol import Broker, Delivery, Outgoing, Properties
from flowkit.wire.messages import Result, Task
from flowkit.wire.topology import Part, Queue, Topology
from flowkit.worker import Worker
from flowkit.worker.stage import OwnThread, SameLoop, Stage

STAGES: dict[str, type[SameLoop | OwnThread]] = {"same": SameLoop, "thread": OwnThread}
PADDING = "x" * 120


@dataclass
class Plain:
    """Properties as a task's message has them."""

    message_type: str | None = Task.TYPE
    message_id: str | None = "m"
    correlation_id: str | None = None
    app_id: str | None = None
    user_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)


PLAIN: Properties = Plain()


class Full:
    """A consumer of a queue that holds these bodies."""

    connected, reconnects, deletions, locked = True, 0, 0, False

    def __init__(self, queue: str, prefetch: int, bodies: Sequence[bytes]) -> None:
        self.queue, self.prefetch, self.bodies = queue, prefetch, bodies
        self.at = self.out = 0
        self.change, self.empty, self.stopped = asyncio.Event(), asyncio.Event(), False

    async def wait_connected(self) -> None:
        """It is."""

    async def wait_locked(self) -> None:
        """Nobody else has its queue."""
        await asyncio.Event().wait()

    async def receive(self, limit: int) -> list[Delivery]:
        """As many as there is room for."""
        while not self.stopped:
            if count := min(limit, self.prefetch - self.out, len(self.bodies) - self.at):
                first, self.at, self.out = self.at, self.at + count, self.out + count
                return [
                    Delivery(self.queue, self.bodies[at], at, key="work", properties=lambda: PLAIN)
                    for at in range(first, first + count)
                ]
            self.change.clear()
            await self.change.wait()
        return []

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """What was received after the worker has stopped is not counted."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Make room."""
        self.out -= len(deliveries)
        self.change.set()
        if not self.out and self.at == len(self.bodies):
            self.empty.set()

    async def stop(self) -> None:
        """Give nothing more."""
        self.stopped = True
        self.change.set()

    close = stop


class Stub:
    """A broker that confirms at once."""

    connected, generation = True, 1

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self.bodies, self.results = bodies, 0
        self.full = Full("", 0, ())

    async def declare(self, parts: Iterable[Part]) -> list[Part]:
        """Everything is there."""
        del parts
        return []

    async def publish(self, messages: Sequence[Outgoing]) -> list[None]:
        """Count the results."""
        await asyncio.sleep(0)  # others get a turn, as with any broker
        self.results += sum(message.type == Result.TYPE for message in messages)
        return [None] * len(messages)

    def consume(self, queue: Queue, *, prefetch: int, **more: Any) -> Full:
        """The node's queue is full, all others are empty."""
        del more
        if ".tasks." not in queue.name:
            return Full(queue.name, prefetch, ())
        self.full = Full(queue.name, prefetch, self.bodies)
        return self.full


async def cost(stage: Stage, tasks: int, lines: int) -> tuple[float, float]:
    """CPU microseconds a task, and results in a message."""
    node = Node("work")
    logger = Logger(node)

    @node.main
    async def main() -> tuple[list[str], dict[str, Any], str]:
        inputs = node.get_inputs()
        for _ in range(lines):
            await logger.info("a line with some words in it")
        return ["next"], {"text": inputs["text"], "n": 4}, "done"

    inputs = {"text": PADDING, "n": 3}
    stub = Stub([Task(task_id=uuid4(), run_id=f"run-{n}", node="work", inputs=inputs).encode() for n in range(tasks)])
    worker = Worker(cast("Broker", stub), Topology(), [node.definition], stage=stage, heartbeat=3600)
    gc.collect()
    began = time.process_time()
    running = asyncio.create_task(worker.run())
    await worker.ready()
    await stub.full.empty.wait()
    spent = time.process_time() - began
    await worker.stop()
    await running
    return spent / tasks * 1e6, tasks / stub.results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="where the nodes run; both when left out")
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--lines", type=int, default=0, help="lines that each task logs")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for name in asked.stages or STAGES:
        asyncio.run(cost(STAGES[name](), 300, asked.lines))  # warm
        micros, bundle = min(asyncio.run(cost(STAGES[name](), asked.tasks, asked.lines)) for _ in range(asked.rounds))
        print(f"{name:7} {micros:6.1f} µs CPU a task, {bundle:.0f} results in a message")


if __name__ == "__main__":
    main()
