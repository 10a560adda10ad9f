"""Broker, store, coordinator and workers in one process: what ``flowkit run`` is, and nothing needs to be installed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from uuid import uuid4

from flowkit import loading
from flowkit.broker import Broker, open_broker
from flowkit.client import Client
from flowkit.coordinator import Coordinator
from flowkit.errors import UsageError
from flowkit.flow.limits import Limits
from flowkit.store import open_store
from flowkit.store.protocol import Store
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology
from flowkit.worker.announce import describe_node
from flowkit.worker.process_exit import undone_at_exit
from flowkit.worker.worker import Worker


class Embedded:
    """Everything, running; made by ``embedded``."""

    def __init__(
        self,
        nodes: Path,
        broker: Broker,
        store: Store,
        topology: Topology,
        group: asyncio.TaskGroup,
        *,
        concurrency: int,
    ) -> None:
        self.broker, self.store, self.topology = broker, store, topology
        self._nodes, self._group, self._concurrency = nodes, group, concurrency
        self._workers: dict[str, asyncio.Task[object]] = {}

    async def summon(self, node: str) -> str | None:
        """Import a node's file and start its worker, once; answers why that cannot be."""
        if node in self._workers:
            return None
        try:
            definitions = loading.load(node, self._nodes)
        except UsageError as error:
            return str(error)
        name = f"embedded-{definitions[0].name}"
        # As its first announcement would: but the first tasks must find the limits of their node.
        told = wire.Worker(worker=name, nodes=tuple(map(describe_node, definitions)))
        await self.store.transact(lambda transaction: transaction.record_workers([told], transaction.now()))
        worker = Worker(
            self.broker,
            self.topology,
            definitions,
            name=name,
            concurrency=self._concurrency,
            drain_timeout=0,
        )
        task = self._group.create_task(worker.run(), name=f"worker {node}")
        for definition in definitions:
            self._workers[definition.name] = task
        return None

    async def completed(self, ended: wire.RunEnded) -> wire.RunEnded:
        """The end of a run with its outputs, which only the store has where they are too large for a message."""
        if ended.status != "succeeded" or ended.outputs is not None:
            return ended
        run = await self.store.query(lambda query: query.run(ended.run_id))
        assert run is not None, "it has just ended"
        return ended.model_copy(update={"outputs": codec.loads(run.outputs or b"{}")})

    def dismiss(self) -> None:
        """End all workers; what they were doing is dropped with the broker."""
        for task in self._workers.values():
            task.cancel()


@contextlib.asynccontextmanager
async def embedded(
    nodes: Path, *, store_url: str | None = None, concurrency: int = 20, limits: Limits | None = None
) -> AsyncIterator[tuple[Embedded, Client]]:
    """Run a whole FlowKit in this process.

    Args:
        nodes: folder with the node files; a node's file is imported when its first task is sent.
        store_url: of a store that stays; without it a temporary one.
        concurrency: tasks of one node at a time.
        limits: guards of runs.

    Yields:
        what runs, and a client for it.

    Raises:
        UsageError: the folder does not exist.
    """
    loading.check_folder(nodes)
    nodes = nodes.absolute()  # a file may change the working directory as it is imported
    async with contextlib.AsyncExitStack() as stack:
        if store_url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flowkit-", ignore_cleanup_errors=True))
            stack.enter_context(undone_at_exit(partial(shutil.rmtree, folder, ignore_errors=True)))
            store_url = f"sqlite:///{folder}/flowkit.db"
        store = await open_store(store_url, lock=True)
        stack.push_async_callback(store.close)
        # A broker of its own for each: its messages end with this block, and the store refills the next one.
        broker = open_broker(f"memory:{uuid4().hex}")
        stack.push_async_callback(broker.close)
        topology = Topology()
        group = await stack.enter_async_context(asyncio.TaskGroup())
        house = Embedded(nodes, broker, store, topology, group, concurrency=concurrency)
        coordinator = Coordinator(
            broker, store, topology, name="embedded", limits=limits, alone=True, take_over=True, summon=house.summon,
            schedules=False,  # it is here for one run, and gone before theirs have ended
        )  # fmt: skip
        running = group.create_task(coordinator.run(), name="coordinator")
        await coordinator.wait_ready()
        try:
            async with Client(broker=broker) as client:
                yield house, client
        finally:
            house.dismiss()
            coordinator.stop()
            await asyncio.wait([running])
