"""The raw limit: the messages of FlowKit between two processes, on the bare data path, without store or user code.

python -m benchmarks.raw.node worker | coordinator

Exchanges, queues, properties and bodies are those of the contract, every result has a message of its own, everything is
confirmed and acknowledged after that. What is missing is what FlowKit is: nothing is remembered, nothing is checked.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from uuid import uuid4

import orjson

from benchmarks.record import note
from flowkit.amqp import Address, Arrived, Channel, Connection, Publication, connect, encode_properties
from flowkit.broker import open_broker
from flowkit.cli.services.lifecycle import loop_factory
from flowkit.wire.messages import rfc3339
from flowkit.wire.topology import Queue, Topology

PREFETCH = 500
TOPOLOGY = Topology(os.environ["BENCH_NAME"])
NODES = ("step", "nothing", "wide", "leaf", "join")
Answer = Callable[[dict[str, object]], Iterable[Publication]]


def published(exchange: str, key: str, *, kind: str, node: str, run: str, body: dict[str, object]) -> Publication:
    """A message with the properties of the contract."""
    message_id = uuid4().hex
    properties = encode_properties(
        content_type="application/json", delivery_mode=2, correlation_id=run, message_id=message_id,
        message_type=kind, app_id=node,
    )  # fmt: skip
    return exchange, key, True, message_id, properties, orjson.dumps(body)


def task(run: str, node: str, inputs: object) -> Publication:
    """A task as a coordinator sends it."""
    body = {"v": 1, "task_id": str(uuid4()), "run_id": run, "node": node, "inputs": inputs, "attempt": 1, "tries": 1}
    return published(TOPOLOGY.name("tasks"), node, kind="flowkit.task", node=node, run=run, body=body)


def worked(message: dict[str, object]) -> Iterable[Publication]:
    """What a worker does with a task."""
    began = time.time()
    node, run, inputs = message["node"], message["run_id"], message["inputs"]
    step = {"leaf": 2, "join": 3}.get(node) or inputs["step"]
    note(inputs["number"], step)
    goes_on = node == "step" and step < inputs["steps"]
    body = {
        "v": 1, "task_id": message["task_id"], "run_id": run, "node": node, "nodes": ["step"] if goes_on else [],
        "outputs": {**inputs, "step": step + 1}, "message": "", "attempt": 1, "status": "succeeded",
        "started_at": rfc3339(began), "finished_at": rfc3339(time.time()), "worker": "raw",
    }  # fmt: skip
    key = f"{node}.succeeded"
    yield published(TOPOLOGY.name("results"), key, kind="flowkit.result", node=node, run=run, body=body)


class Coordinator:
    """Answers starts and results; joins are counted in memory."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def begun(self, message: dict[str, object]) -> Iterable[Publication]:
        """What follows from a start."""
        yield task(message["run_id"], message["node"], message["inputs"])

    def followed(self, message: dict[str, object]) -> Iterable[Publication]:
        """What follows from a result."""
        run, node, outputs = message["run_id"], message["node"], message["outputs"]
        if message["nodes"]:
            yield task(run, "step", outputs)
        elif node == "wide":
            self._open[run] = outputs["width"]
            for _ in range(outputs["width"]):
                yield task(run, "leaf", {"number": outputs["number"]})
        elif node == "leaf":
            self._open[run] -= 1
            if not self._open[run]:
                yield task(run, "join", {"number": outputs["number"]})


class Side:
    """Takes messages of a queue, publishes what follows, and acknowledges when that is confirmed."""

    def __init__(self, taking: Channel, giving: Channel, answer: Answer, group: asyncio.TaskGroup) -> None:
        self._taking, self._giving, self._answer, self._group = taking, giving, answer, group
        self._last: asyncio.Task[None] | None = None

    def take(self, arrived: Sequence[Arrived]) -> None:
        """All that one read of the socket brought."""
        messages = [message for one in arrived for message in self._answer(orjson.loads(one.body))]
        self._last = self._group.create_task(self._give(messages, arrived[-1].tag, self._last))

    async def _give(self, messages: Sequence[Publication], tag: int, before: asyncio.Task[None] | None) -> None:
        lost = [outcome for outcome in await self._giving.publish(messages) if outcome] if messages else []
        assert not lost, lost[0]
        if before is not None:
            await before  # acknowledgements are of a prefix
        self._taking.acknowledge(up_to=tag, singles=())


async def side(connections: tuple[Connection, Connection], group: asyncio.TaskGroup, queue: Queue, do: Answer) -> None:
    """Begin to consume a queue."""
    taking, giving = await connections[0].channel(), await connections[1].channel(confirms=True)
    await taking.qos(PREFETCH)
    await taking.consume(queue.name, Side(taking, giving, do, group).take)


async def main(role: str) -> None:
    """Serve until killed."""
    broker = open_broker(os.environ["BENCH_BROKER"])
    await broker.connect(10)
    await broker.declare([*TOPOLOGY.standing, *(TOPOLOGY.tasks(node) for node in NODES)])
    await broker.close()
    reach = partial(connect, Address.parse(os.environ["BENCH_BROKER"]), heartbeat=60, properties={})
    connections = await reach(), await reach()
    async with asyncio.TaskGroup() as group:
        if role == "worker":
            for node in NODES:
                await side(connections, group, TOPOLOGY.tasks(node), worked)
        else:
            coordinator = Coordinator()
            await side(connections, group, TOPOLOGY.starts, coordinator.begun)
            await side(connections, group, TOPOLOGY.results, coordinator.followed)
        print("ready", flush=True)
        await asyncio.wait([one.closed for one in connections], return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(sys.argv[1]))
