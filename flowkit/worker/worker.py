"""The worker: takes tasks of its nodes, executes them, reports, acknowledges, drains.

    task ─► Intake ─► execute ─► Reporter ─► result confirmed ─► task acknowledged

The author's code runs in tasks of its own, never inside a consumer: a dying channel must not take it along.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress

from flowkit.broker.protocol import Broker, Consumer
from flowkit.errors import Unreadable, UsageError
from flowkit.flow.limits import Limits
from flowkit.wire import names
from flowkit.wire.messages import Control, decode
from flowkit.wire.topology import Topology
from flowkit.worker.announce import Announcer
from flowkit.worker.definition import Definition
from flowkit.worker.execute import Clock
from flowkit.worker.execution import Taken
from flowkit.worker.intake import Intake
from flowkit.worker.logs import Shipper
from flowkit.worker.naming import NameGuard, worker_name
from flowkit.worker.read_ahead import ReadAhead
from flowkit.worker.records import capture
from flowkit.worker.reporter import Reporter
from flowkit.worker.runner import Runner
from flowkit.worker.stage import SameLoop, Stage

_log = logging.getLogger(__name__)

LAST_WORDS = 2.0  # seconds for the last announcement and the last log lines of a worker that ends


class Worker:
    """A long-lived worker of some nodes.

    Args:
        broker: connected already, or connecting.
        topology: the names there.
        definitions: the nodes, each with a name of its own.
        name: of this process; made up when left out.
        concurrency: how many tasks of one node run at a time, for nodes that do not say.
        drain_timeout: seconds that running tasks have to finish after ``stop``.
        heartbeat: seconds between two announcements.
        patience: seconds that a task which was taken waits here for a slot.
        name_patience: seconds to wait for the name of a worker whose connection has not ended yet.
        log_linger: seconds that log lines wait for more before they leave together.
        limits: how much one task may return.
        clock: Unix seconds.
        stage: where the nodes' code runs; the worker's own loop when left out.
    """

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        definitions: Sequence[Definition],
        *,
        name: str | None = None,
        concurrency: int = 100,
        drain_timeout: float = 25,
        heartbeat: float = 5,
        patience: float = 300,
        name_patience: float = 50,
        log_linger: float = 0.05,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        clock: Clock = time.time,
        stage: Stage | None = None,
    ) -> None:
        nodes = [definition.name for definition in definitions]
        twice = sorted({one for one in nodes if nodes.count(one) > 1})
        if twice:
            raise UsageError(f"node {twice[0]!r} is there twice: each node of a worker has a name of its own")
        if not nodes:
            raise UsageError("a worker without nodes has nothing to do: name at least one")
        if name is not None and not names.is_process(name):
            raise UsageError(f"worker name {name[:120]!r}: expected {names.PROCESS_IN_WORDS}")
        self.name = worker_name() if name is None else name
        self._broker, self._topology, self._definitions = broker, topology, tuple(definitions)
        self._slots = {definition.name: definition.concurrency or concurrency for definition in definitions}
        self._drain_timeout = drain_timeout
        self._taken = Taken()
        self._logs = Shipper(broker, topology, worker=self.name, linger=log_linger, clock=clock)
        self._reporter = Reporter(broker, topology.name("results"), on_batch=self._logs.hurry)
        self._announcer = Announcer(
            broker, topology, worker=self.name, definitions=definitions, taken=self._taken, every=heartbeat,
            consumers=self._consumers,
        )  # fmt: skip
        self._heartbeat, self._patience, self._name_patience = heartbeat, patience, name_patience
        self._group = asyncio.TaskGroup()
        self._stage = stage or SameLoop()
        self._durations: dict[str, Callable[[float], None]] = {}
        self._runner = Runner(
            self._group,
            slots=self._slots,
            stage=self._stage,
            taken=self._taken,
            reporter=self._reporter,
            sink=self._logs,
            worker=self.name,
            limits=limits,
            clock=clock,
            durations=self._durations,
        )
        self._intakes: list[Intake] = []
        self._ready, self._stopping, self._stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._forced = asyncio.Event()
        self._forbidden: set[str] = set()  # parts that this login may not declare
        self._running = self._abandoned = False
        self._whole: asyncio.Task[object] | None = None  # in which ``run`` runs

    @property
    def running(self) -> int:
        """How many tasks it has taken and not yet answered."""
        return len(self._taken)

    @property
    def connected(self) -> bool:
        """Whether it can publish, and takes tasks of every node."""
        return self._broker.connected and bool(self._intakes) and all(one.connected for one in self._intakes)

    async def ready(self) -> None:
        """Return when it takes tasks for the first time."""
        await self._ready.wait()

    async def run(self) -> None:
        """Work until ``stop``.

        Raises:
            FlowKitError: it cannot go on, and trying again cannot help: a queue with other arguments, a permission
                that is missing.
        """
        self._running, self._whole = True, asyncio.current_task()
        capture()
        self._stage.begin()
        try:
            await self._declare()
            async with self._group:
                try:
                    await self._work()
                finally:  # the group would wait for ever for code that cannot hear that it is cancelled
                    await self._runner.abandon()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._stopped.set()
            self._stage.end()

    async def stop(self) -> bool:
        """Take nothing more, finish what runs within the drain timeout, give back what has not started.

        Returns:
            whether started work had to be abandoned; it will run again elsewhere.
        """
        self._stopping.set()
        if self._running:
            await self._stopped.wait()
        return self._abandoned

    def force(self) -> None:
        """Abandon what runs, now."""
        self._forced.set()
        self._stopping.set()
        if self._whole is not None and not self._ready.is_set():
            self._whole.cancel()  # it waits for a broker, and would not look up before there is one

    async def _declare(self) -> None:
        queues = (self._topology.tasks(definition.name) for definition in self._definitions)
        for part in await self._broker.declare((*self._topology.standing, *queues)):
            if part.name not in self._forbidden:
                _log.info("not allowed to declare %s; going on, others may have", part.name)
            self._forbidden.add(part.name)

    async def _work(self) -> None:
        control = self._broker.consume(self._topology.control(self.name), prefetch=100)
        guard = NameGuard(self._broker, self._topology, control, name=self.name, patience=self._name_patience)
        side = [
            self._group.create_task(loop)
            for loop in (
                self._logs.run(),
                self._reporter.run(),
                self._keep_declared(),
                guard.run(),
                self._stage.watch(),
                self._runner.relieve(self._patience),
            )
        ]
        # Whoever answers an announcement must be heard: first the ear, then the voice.
        if not await self._unless_stopping(control.wait_connected()):
            for loop_task in side:
                loop_task.cancel()
            await control.close()
            return
        side.append(self._group.create_task(self._obey(control)))
        for definition in self._definitions:
            self._intakes.append(intake := self._intake(definition))
            side.append(self._group.create_task(self._read_ahead(intake).run()))
        taking = [self._group.create_task(intake.run()) for intake in self._intakes]
        announcing = self._group.create_task(self._announcer.run())
        for intake in self._intakes:
            await intake.wait_connected()
        self._ready.set()
        _log.info("worker %s takes tasks of %s", self.name, ", ".join(one.name for one in self._definitions))

        await self._stopping.wait()
        await self._drain()
        await asyncio.wait(taking)
        announcing.cancel()
        # At once, for each may have to wait for a broker that does not answer.
        await asyncio.gather(self._announce_end(), self._logs.flush(LAST_WORDS))
        await asyncio.gather(control.close(), *(intake.close() for intake in self._intakes))
        for loop_task in side:
            loop_task.cancel()
        self._stopped.set()  # before the group ends: code that swallows its cancellation must not hold up the answer

    async def _unless_stopping(self, wait: Coroutine[object, object, None]) -> bool:
        """Wait for something before the first task is taken; False when ``stop`` was called first."""
        waiting = asyncio.create_task(wait)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
            return waiting.done()
        finally:
            waiting.cancel()
            stopping.cancel()

    def _intake(self, definition: Definition) -> Intake:
        queue = self._topology.tasks(definition.name)
        # It holds as many as it may run: what is delivered has a slot, and waits for no other task (decision 0026).
        return Intake(
            definition,
            lambda prefetch: self._broker.consume(queue, prefetch=prefetch),
            slots=self._slots[definition.name],
            taken=self._taken,
            begin=self._runner.begin,
        )

    def _read_ahead(self, intake: Intake) -> ReadAhead:
        ahead = ReadAhead(intake, self._taken, put_back=self._runner.put_back, announce=self._announcer.announce)
        self._durations[intake.node] = ahead.record
        return ahead

    def _consumers(self) -> dict[str, int]:
        return {intake.node: len(intake.consumers) for intake in self._intakes if len(intake.consumers) != 1}

    async def _keep_declared(self) -> None:
        """Declare again after each new connection: the broker behind it may have lost everything.

        And while a queue cannot be consumed, or results are refused: somebody may have deleted what they need.
        """
        generation = self._broker.generation
        while True:
            await asyncio.sleep(self._heartbeat)
            deaf = self._ready.is_set() and not all(intake.connected for intake in self._intakes)
            if generation != self._broker.generation or deaf or self._reporter.unroutable:
                generation = self._broker.generation
                await self._declare()

    async def _obey(self, control: Consumer) -> None:
        while batch := await control.receive(100):
            for delivery in batch:
                try:
                    message = decode(Control, delivery.body)
                except Unreadable as error:  # a newer coordinator may say what this worker does not know
                    _log.warning("control message ignored: %s", error, extra={"action": "control_ignored"})
                else:
                    await self._runner.obey(message)
            await control.ack(batch)

    async def _announce_end(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._announcer.announce(stopping=True)

    async def _drain(self) -> None:
        await asyncio.gather(*(intake.stop() for intake in self._intakes))
        await self._runner.begin_no_more()
        if not await self._all_answered(self._drain_timeout):
            left = list(self._taken)
            if again := sum(not execution.stopping for execution in left):  # the others were cancelled
                self._abandoned = True
                what = "1 task abandoned: it" if again == 1 else f"{again} tasks abandoned: they"
                _log.warning("%s will run again", what, extra={"action": "abandoned"})
            await self._runner.put_back(left)
            await self._all_answered(2)  # what only a result brings back

    async def _all_answered(self, timeout: float) -> bool:
        """Wait until nothing is left that was taken; False after ``timeout`` seconds, or when forced."""
        waits = [asyncio.ensure_future(event) for event in (self._taken.none_left(), self._forced.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not len(self._taken)
