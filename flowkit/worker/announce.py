"""What a worker says of itself, every few seconds: announcement and heartbeat in one."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from flowkit.broker.protocol import Broker, Outgoing
from flowkit.wire import codec
from flowkit.wire.messages import NodeInfo, Running, Worker
from flowkit.wire.topology import Topology
from flowkit.worker.definition import Definition
from flowkit.worker.execution import Taken
from flowkit.worker.naming import host_name
from flowkit.worker.schemas import MAX_WORKER, schemas_of

_log = logging.getLogger(__name__)


@cache
def flowkit_version() -> str:
    """The version that is installed; empty when FlowKit runs from somewhere else."""
    try:
        return version("flowkit-mq")
    except PackageNotFoundError:
        return ""


def describe_node(definition: Definition) -> NodeInfo:
    """What the others may know of a node."""
    return described(definition)[0]


def described(definition: Definition) -> tuple[NodeInfo, list[str]]:
    """The same, and in a line each what could not be understood of its annotations."""
    returns = definition.declared
    schemas, problems = schemas_of(definition)
    info = NodeInfo(
        name=definition.name,
        on_error=definition.on_error,
        timeout=definition.timeout,
        queue_timeout=definition.queue_timeout,
        limit=definition.limit,
        rate=definition.rate,
        key=definition.key,
        schemas=schemas or None,
        next=returns.next,
        plain=returns.plain,
        others=returns.others,
    )
    return info, problems


def describe_nodes(definitions: Iterable[Definition]) -> Iterator[NodeInfo]:
    """All nodes of a process, as much as may be announced every few seconds; what is left out is logged."""
    left = MAX_WORKER
    for definition in definitions:
        info, problems = described(definition)
        for problem in problems:
            _log.warning("node %s: %s", definition.name, problem, extra={"action": "not_declared"})
        size = len(codec.dumps(info.schemas))
        if size > left:
            why = f"schemas left out: those of this worker's nodes are over {MAX_WORKER:,} bytes together"
            _log.warning("node %s: %s", definition.name, why, extra={"action": "not_declared"})
            info = info.model_copy(update={"schemas": None})
        else:
            left -= size
        yield info


class Announcer:
    """Says which nodes this worker has and what it has taken.

    Args:
        broker: where to publish.
        topology: the names there.
        worker: the name of this process.
        definitions: its nodes.
        taken: its executions.
        every: seconds from one announcement to the next.
        consumers: gives how many consumers nodes have, of those with another number than one.
    """

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        *,
        worker: str,
        definitions: Iterable[Definition],
        taken: Taken,
        every: float,
        consumers: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._broker, self._exchange, self._worker = broker, topology.name("workers"), worker
        self._nodes = tuple(describe_nodes(definitions))
        self._taken, self._every, self._consumers = taken, every, consumers
        self._process = {"host": host_name(), "pid": os.getpid(), "started_at": time.time()}

    async def run(self) -> None:
        """Announce until cancelled."""
        while True:
            await self.announce()
            await asyncio.sleep(self._every)

    async def announce(self, *, stopping: bool = False) -> None:
        """Announce once; nothing is lost when it does not arrive."""
        running = tuple(Running(one.task.task_id, one.task.attempt, one.since, one.task.run_id) for one in self._taken)
        others = {"consumers": consumers} if (consumers := self._consumers()) else {}
        message = Worker(
            worker=self._worker, version=flowkit_version(), nodes=self._nodes, running=running, stopping=stopping,
            **self._process, **others,
        )  # fmt: skip
        outgoing = Outgoing(self._exchange, "", message.encode(), Worker.TYPE, durable=False)
        for error in await self._broker.publish([outgoing]):
            if error is not None:
                _log.debug("announcement not sent: %s", error)
