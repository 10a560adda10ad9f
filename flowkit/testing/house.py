"""All that a simulation consists of, on its loop: broker, store, coordinators, workers, and a client for the test."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from flowkit.broker.memory.server import Server
from flowkit.client import Client
from flowkit.coordinator import Coordinator, Pace
from flowkit.flow.limits import Limits
from flowkit.store import Inline, open_store
from flowkit.store.protocol import Store, Transaction
from flowkit.testing.clock import VirtualLoop
from flowkit.testing.faults import Fates
from flowkit.testing.life import Life
from flowkit.testing.limit_check import LimitCheck
from flowkit.testing.nodes import Call, recorded
from flowkit.testing.process import Body, Process
from flowkit.testing.rest import Rest
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology
from flowkit.worker.announce import describe_node
from flowkit.worker.definition import Definition
from flowkit.worker.worker import Worker

STRANDED = 600.0  # seconds lived through in which no main runs, though something is under way: nobody will repair it
SECRET = hashlib.sha256(b"flowkit.testing").hexdigest()  # ids of tasks are the same each time


class House:
    """A whole FlowKit.

    Args:
        loop: on which it lives.
        fates: decides what goes wrong.
        definitions: the nodes, by name; each worker has all of them.
        coordinators: how many there are.
        workers: how many there are.
        limits: guards of runs.
        pace: of the coordinators' loops.
    """

    store: Store
    client: Client

    def __init__(
        self,
        loop: VirtualLoop,
        fates: Fates,
        definitions: Mapping[str, Definition],
        *,
        coordinators: int,
        workers: int,
        limits: Limits | None,
        pace: Pace | None,
    ) -> None:
        self.server, self.calls = Server(), list[Call]()
        self.limits = LimitCheck()
        self.announced: set[str] = set()  # runs whose end the broker has confirmed to somebody
        self._loop, self._fates, self._definitions = loop, fates, definitions
        self._coordinators, self._workers = coordinators, workers
        self._limits, self._pace = limits, pace
        self._topology = Topology()
        self._processes: list[Process] = []
        self._progress = (0, 0.0)  # calls, and when it was last so that there were fewer, or nothing under way
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Begin all of it, and come to rest."""
        self.store = await open_store("sqlite://", executor=Inline(), clock=self._loop.wall)
        self._stack.push_async_callback(self.store.close)
        await self.store.transact(self._found)
        self._processes = [
            *(self._process("coordinator", number, self._coordinator) for number in range(self._coordinators)),
            *(self._process("worker", number, self._worker) for number in range(self._workers)),
        ]
        self._rest = Rest(self.server, self.store, self._topology, self._processes)
        for process in self._processes:
            self._stack.callback(asyncio.create_task(process.run(), name=process.name).cancel)
        life = Life(
            "test", "client", self.server, self.store, fates=self._fates, jump=self._loop.jump,
            announced=self.announced, on_results=self.limits.note_results,
        )  # fmt: skip
        self.client = await self._stack.enter_async_context(Client(broker=life.broker))

    async def close(self) -> None:
        """End all of it, in no order: nothing is left that anybody would miss."""
        await self._stack.aclose()

    async def look(self, seconds: float) -> tuple[bool, float | None]:
        """Let happen what happens in so many seconds; whether all is at rest then, and when something is due next."""
        await asyncio.sleep(seconds)
        for process in self._processes:
            if process.failure is not None:  # nobody killed it: a bug of ours
                raise process.failure
        at_rest, due = await self._rest.look(self._loop.wall())
        self._note_progress(going_on=not at_rest and not any(process.busy for process in self._processes))
        return at_rest, due

    def _note_progress(self, *, going_on: bool) -> None:
        calls, since = self._progress
        if not going_on or calls != len(self.calls):
            self._progress = (len(self.calls), self._loop.now)
        elif self._loop.now - since > STRANDED:
            raise AssertionError(
                f"something was lost: a message or task is under way, and for {STRANDED:g} s nothing has come of it"
            )

    def _found(self, transaction: Transaction) -> None:
        """The facts of the store, and the nodes as their first announcement would tell them: limits count at once."""
        transaction.set_meta("secret", SECRET)
        transaction.set_meta("id", SECRET[:32])
        if self._workers:
            nodes = tuple(map(describe_node, self._definitions.values()))
            transaction.record_workers([wire.Worker(worker="worker-1.1", nodes=nodes)], transaction.now())

    def _process(self, role: str, number: int, body: Callable[[Life], Body]) -> Process:
        def born(name: str) -> Life:
            return Life(
                name, role, self.server, self.store, fates=self._fates, jump=self._loop.jump,
                announced=self.announced, on_results=self.limits.note_results,
            )  # fmt: skip

        return Process(f"{role}-{number + 1}", born, body)

    def _coordinator(self, life: Life) -> Body:
        coordinator = Coordinator(
            life.broker,
            life.store,
            self._topology,
            name=life.name,
            limits=self._limits,
            pace=self._pace,
            alone=self._coordinators == 1,
            clock=self._loop.wall,
            strict=True,
        )
        return Body(coordinator.run(), lambda: coordinator.ready, lambda: False)

    def _worker(self, life: Life) -> Body:
        nodes = [recorded(one, life, self.calls, self._loop.wall, self.limits) for one in self._definitions.values()]
        worker = Worker(life.broker, self._topology, nodes, name=life.name, drain_timeout=0, clock=self._loop.wall)
        return Body(worker.run(), lambda: worker.connected, lambda: worker.running > 0)
