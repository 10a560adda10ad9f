"""The coordinator: turns starts and results into tasks, and keeps every run in the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from flowkit.coordinator.archive import Archive
from flowkit.coordinator.commit import REFILLS, refills
from flowkit.coordinator.dead import DeadLetters
from flowkit.coordinator.expirations import Expirations
from flowkit.coordinator.identity import Identity
from flowkit.coordinator.intake import Intake
from flowkit.coordinator.isolation import keep_running
from flowkit.coordinator.leases import Leases
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.lonely import LonelyNodes
from flowkit.coordinator.outbox import Outbox, Summon
from flowkit.coordinator.overdue import Overdue
from flowkit.coordinator.presence import Presence
from flowkit.coordinator.publish_queue import PublishQueue
from flowkit.coordinator.read_progress import ReadProgressRecorder
from flowkit.coordinator.reading import Reader
from flowkit.coordinator.refusals import OWN_AGE, RefusedTasks
from flowkit.coordinator.relay import Relay, Timers
from flowkit.coordinator.retention import Retention
from flowkit.coordinator.schedules import Schedules
from flowkit.coordinator.silence import Silence
from flowkit.coordinator.slots import Slots
from flowkit.coordinator.standby import Standby
from flowkit.coordinator.sweeper import Sweeper
from flowkit.flow.limits import Limits
from flowkit.flow.terms import Terms
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.access import Logins

if TYPE_CHECKING:
    from flowkit.broker.protocol import Broker
    from flowkit.store.protocol import Store, Transaction
    from flowkit.store.views import Queries
    from flowkit.wire.topology import Queue, Topology

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often and how long, in seconds; how many in a batch."""

    batch: int = 200
    timers_every: float = 0.25
    slots_every: float = 5
    relay_every: float = 3
    relay_after: float = 10
    sent_marks_after: float = 1
    standing_every: float = 5
    lonely_every: float = 6  # a worker announces itself every 5
    sweep_every: float | None = 30  # None: nobody looks for lost tasks
    sweep_after: float = 60
    worker_silence: float = 15
    overdue_every: float = 5
    progress_every: float = 2  # how often a coordinator writes how far it has committed what was delivered to it
    progress_silence: float = 15  # until the row of one that does not is removed
    lease_after: float = 300  # how long a task has been running when its lease begins
    lease_silence: float = 90  # of its worker, until the task's process counts as dead
    archive_lease: float = 10
    standby_after: float = 1  # how long the store is away, until what is held is given back
    early: float = 10  # how long a command may wait for the start of its run
    schedules_every: float = 0.5
    retention: float | None = None  # how long ended runs are kept; None: for ever
    retention_every: float = 600
    drain: float = 10  # for what was taken when it is told to stop; what is not acknowledged by then comes again


class Coordinator:
    """One coordinator process. Several may run at once over one PostgreSQL.

    Args:
        broker: connected or not yet.
        store: open; on SQLite with the coordinator's lock taken.
        topology: names of exchanges and queues.
        name: of this process, as others see it.
        limits: guards of runs.
        pace: intervals and sizes of batches.
        alone: no other coordinator can be at work on this store, so what is found unsent at the start is stranded.
        take_over: make this store the owner of a broker that belonged to another one.
        summon: brings up workers where they live in the same process; a task for a node it cannot provide fails.
        schedules: begin the runs of schedules.
        logins: who may answer for which nodes.
        clock: Unix seconds, where the store's own do not decide.
        strict: end by an error that nobody expected in a loop, where otherwise the loop begins again: for simulations.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        topology: Topology,
        *,
        name: str,
        limits: Limits | None = None,
        pace: Pace | None = None,
        alone: bool = False,
        take_over: bool = False,
        summon: Summon | None = None,
        schedules: bool = True,
        logins: Logins | None = None,
        clock: Callable[[], float] = time.time,
        strict: bool = False,
    ) -> None:
        self._strict = strict
        self._broker, self._store, self._topology = broker, store, topology
        self._name, self._limits, self._pace = name, limits or Limits(), pace or Pace()
        self._alone, self._take_over, self._summon = alone, take_over, summon
        self._schedules, self._logins, self._clock = schedules, logins or Logins(), clock
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        self._ledger: Ledger | None = None

    @property
    def ready(self) -> bool:
        """Whether it is connected, takes messages, and reaches its store."""
        away = self._ledger is None or self._ledger.away
        return self._ready.is_set() and not self._stopping.is_set() and self._broker.connected and not away

    async def wait_ready(self) -> None:
        """Return when it takes messages."""
        await self._ready.wait()

    def stop(self) -> None:
        """Take no more messages, bring those taken through, and end ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Coordinate until stopped.

        Raises:
            WrongBroker: the broker belongs to another store.
            FlowKitError: broker or store say something that trying again cannot change.
        """
        # The store may be away while it begins, as at any other moment.
        store_id, secret, epoch = await Ledger(self._store, self._limits, b"").transact(_identity)
        self._ledger = ledger = Ledger(
            self._store, self._limits, secret, marks_after=self._pace.sent_marks_after, epoch=epoch
        )
        outbox = Outbox(
            self._broker, self._topology, ledger,
            max_nodes=self._limits.max_nodes, summon=self._summon, clock=self._clock,
        )  # fmt: skip
        outbox.know(await ledger.query(_announced))
        archive = Archive(self._broker, self._topology, ledger, owner=self._name, lease=self._pace.archive_lease)
        relay = Relay(self._broker, ledger, outbox, after=self._pace.relay_after, every=self._pace.relay_every)
        identity = Identity(
            self._broker, self._topology, ledger, outbox, archive,
            store_id=store_id, take_over=self._take_over, every=self._pace.standing_every,
        )  # fmt: skip
        if not await self._unless_stopped(identity.claim()):
            return
        refused_age = min(OWN_AGE, self._pace.relay_after)
        terms = Terms(self._pace.lease_after, self._pace.lease_silence)
        leases = Leases(ledger, outbox, terms)
        presence = Presence(
            self._broker,
            self._topology,
            ledger,
            outbox,
            leases,
            silence=self._pace.worker_silence,
            logins=self._logins,
        )
        intakes = self._intakes(ledger, outbox)
        readers = (*intakes, presence)
        progress = ReadProgressRecorder(
            self._broker, ledger, self._name, {self._topology.results: intakes[0], self._topology.workers: presence},
            every=self._pace.progress_every, gone=self._pace.progress_silence, alone=self._alone,
        )  # fmt: skip
        silence = Silence(
            self._broker, self._topology, ledger, outbox, presence, progress=progress, lasting=terms.silence
        )
        lonely = LonelyNodes(self._broker, self._topology, ledger, presence, every=self._pace.lonely_every)
        overdue = Overdue(
            self._broker,
            self._topology,
            ledger,
            outbox,
            presence,
            progress=progress,
            every=self._pace.overdue_every,
            silence=self._pace.worker_silence,
        )
        publishing = PublishQueue(ledger, outbox)
        expirations = Expirations(ledger, publishing, every=self._pace.timers_every)
        clockwork: tuple[Callable[[], Coroutine[object, object, None]], ...] = (
            *self._by_the_clock(ledger, outbox, publishing),
            relay.run,
            RefusedTasks(self._broker, ledger, outbox, age=0 if self._alone else refused_age).run,
            *self._sweeping(ledger, presence, publishing, progress),
            silence.run,
            lonely.run,
            overdue.run,
            ledger.flush,
        )
        try:
            async with asyncio.TaskGroup() as group:
                consumers = [loop.consumer for loop in readers]
                # First: what is sent may have to wait for it.
                standby = Standby(ledger, consumers, after=self._pace.standby_after)
                background = [
                    group.create_task(self._keep_running(identity.watch, consumers)),
                    group.create_task(self._keep_running(standby.run)),
                    # Not behind what an earlier process left: sending that takes as long as an alarm of the broker.
                    group.create_task(self._keep_running(expirations.run)),
                    group.create_task(self._keep_running(publishing.run)),
                    group.create_task(self._keep_running(progress.run)),
                ]
                # Before anything new could look unsent too:
                if await self._unless_stopped(relay.catch_up(after=0 if self._alone else None)):
                    background += [group.create_task(self._keep_running(loop)) for loop in clockwork]
                    await self._read(group, readers, archive)
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            self._ready.clear()
            await asyncio.gather(*(loop.consumer.close() for loop in readers))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.drain):
                await ledger.flush_now()
                await progress.withdraw()
        logger.info("coordinator %s has stopped", self._name, extra={"action": "stopped"})

    async def _unless_stopped(self, work: Coroutine[object, object, object]) -> bool:
        """Do this, which may have to wait for the broker; False when it was told to stop first."""
        doing, asked = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((doing, asked), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                await doing
            return not self._stopping.is_set()
        finally:
            doing.cancel()
            asked.cancel()
            await asyncio.wait((doing, asked), timeout=self._pace.drain)

    async def _read(
        self, group: asyncio.TaskGroup, readers: Sequence[Intake | DeadLetters | Presence], archive: Archive
    ) -> None:
        """Take messages until told to stop, then bring those taken through."""
        reading = [group.create_task(loop.run()) for loop in readers]
        reading.append(group.create_task(self._keep_running(archive.run)))
        self._ready.set()
        logger.info("coordinator %s is ready", self._name, extra={"action": "ready"})
        await self._stopping.wait()
        await asyncio.gather(archive.stop(), *(loop.consumer.stop() for loop in readers))
        await asyncio.wait(reading, timeout=self._pace.drain)
        for task in reading:
            task.cancel()

    def _keep_running(
        self, loop: Callable[..., Coroutine[object, object, None]], *args: object
    ) -> Coroutine[object, object, None]:
        if self._strict:
            return loop(*args)
        return keep_running(f"the loop {loop.__qualname__}", partial(loop, *args))

    def _sweeping(
        self, ledger: Ledger, presence: Presence, publishing: PublishQueue, progress: ReadProgressRecorder
    ) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        """The search for lost tasks, unless nobody is to search."""
        if self._pace.sweep_every is not None:
            yield Sweeper(
                self._broker, self._topology, ledger, presence, publishing, progress=progress,
                every=self._pace.sweep_every, after=self._pace.sweep_after, silence=self._pace.worker_silence,
            ).run  # fmt: skip

    def _by_the_clock(
        self, ledger: Ledger, outbox: Outbox, publishing: PublishQueue
    ) -> Iterator[Callable[[], Coroutine[object, object, None]]]:
        """The loops that need nothing but store and time."""
        yield Timers(ledger, outbox, every=self._pace.timers_every).run
        yield Slots(ledger, outbox, every=self._pace.slots_every).run
        if self._schedules:
            yield Schedules(ledger, publishing, every=self._pace.schedules_every).run
        if self._pace.retention is not None:
            yield Retention(ledger, keep=self._pace.retention, every=self._pace.retention_every).run

    def _intakes(self, ledger: Ledger, outbox: Outbox) -> tuple[Intake, Intake, Intake, DeadLetters]:
        """A loop for each queue whose messages become events: results, starts, commands, dead letters."""
        reader = Reader(self._topology, self._logins)

        def intake(queue: Queue) -> Intake:
            return Intake(
                queue, broker=self._broker, topology=self._topology, ledger=ledger, outbox=outbox, reader=reader,
                batch=self._pace.batch, early=self._pace.early,
            )  # fmt: skip

        topology = self._topology
        dead = DeadLetters(self._broker, topology, ledger, outbox, reader)
        return intake(topology.results), intake(topology.starts), intake(topology.commands), dead


def _announced(queries: Queries) -> list[wire.NodeInfo]:
    """The nodes that are known from before; what another version has written and this one refuses is left out."""
    known = []
    for name, info, _ in queries.node_infos():
        try:
            known.append(wire.NodeInfo.model_validate(codec.loads(info)))
        except ValidationError as error:  # its workers will say it again
            logger.warning("node %s was announced in other words than are understood here: %s", name,
                           wire.explain(error), extra={"action": "bad_announcement", "node": name})  # fmt: skip
    return known


def _identity(transaction: Transaction) -> tuple[str, bytes, int]:
    store_id, secret = transaction.meta("id"), transaction.meta("secret")
    assert store_id is not None, "the store makes its id when it is created"
    assert secret is not None, "the store makes its secret when it is created"
    number = refills(transaction)
    transaction.set_meta(REFILLS, str(number))  # from now on there is something to lock
    return store_id, bytes.fromhex(secret), number


def _first(error: BaseException) -> BaseException:
    """The error that made the others stop, out of the groups that carry it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
