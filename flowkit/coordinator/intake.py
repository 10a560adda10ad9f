"""The loop of the commit protocol: receive a batch, commit what follows, publish it, acknowledge."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from flowkit.broker.protocol import Broker, Delivery
from flowkit.coordinator.commit import Committed
from flowkit.coordinator.dead import Rejected, bury, part_of, reason_of, why_conflict, why_forbidden
from flowkit.coordinator.early import Early
from flowkit.coordinator.isolation import process_apart
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.reading import Reader
from flowkit.coordinator.replaying import Replays
from flowkit.errors import FlowKitError, Unreadable
from flowkit.flow.events import Commanded, Event, Reported, Started
from flowkit.wire import messages as wire
from flowkit.wire.topology import Queue, Topology

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Step:
    """A batch that is committed and waits to be published."""

    deliveries: Sequence[Delivery]
    committed: Sequence[Committed]
    rejected: Sequence[Rejected]
    replays: Sequence[tuple[Delivery, wire.Command]]


class Intake:
    """Takes the messages of one queue through the commit protocol.

    A batch is acknowledged when all that follows from it is durable and confirmed. The next batch may be in its
    transaction meanwhile; never more than one.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        broker: Broker,
        topology: Topology,
        ledger: Ledger,
        outbox: Outbox,
        reader: Reader,
        batch: int,
        early: float,
    ) -> None:
        self._broker, self._topology = broker, topology
        self._ledger, self._outbox, self._reader = ledger, outbox, reader
        self._batch = batch
        self._replays = Replays(broker, topology, ledger)
        self.consumer = broker.consume(queue, prefetch=2 * batch)
        self.committed = 0  # the newest tag up to which all deliveries are committed; commands may be kept for longer
        self._early = Early(self.consumer, early)
        self._committed: asyncio.Queue[_Step | None] = asyncio.Queue(maxsize=1)

    async def run(self) -> None:
        """Until the consumer is stopped and everything that it had taken is through."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commit_batches())
            group.create_task(self._publish_batches())

    async def _commit_batches(self) -> None:
        while deliveries := await self._early.receive(self._batch):
            step = await self._commit(deliveries)
            self.committed = max(delivery.tag for delivery in deliveries)
            await self._committed.put(step)
        await self._committed.put(None)

    async def _publish_batches(self) -> None:
        while step := await self._committed.get():
            for committed in step.committed:
                await self._outbox.deliver(committed)
            rejected = [*step.rejected, *await self._replay(step.replays)]
            await bury(self._broker, self._topology, self._ledger, rejected)
            await self.consumer.ack(step.deliveries)

    async def _replay(self, replays: Sequence[tuple[Delivery, wire.Command]]) -> list[Rejected]:
        """Replay dead letters; the commands that could not be carried out, or not in full."""
        rejected: list[Rejected] = []
        for delivery, command in replays:
            answers, failed = await process_apart([command], lambda some: self._replays.carry_out(some[0]))
            rejected += [Rejected(delivery, "refused", why) for why in answers if why is not None]
            rejected += [_failed(delivery, error) for _, error in failed]
        return rejected

    async def _commit(self, deliveries: Sequence[Delivery]) -> _Step:
        """Decode and commit a batch; what cannot be decoded or committed is rejected, the rest goes on."""
        readable: list[tuple[Delivery, list[Event]]] = []
        rejected: list[Rejected] = []
        replays: list[tuple[Delivery, wire.Command]] = []
        for delivery in deliveries:
            try:
                message = self._reader.read(delivery)
            except Unreadable as error:
                rejected.append(Rejected(delivery, error.reason, error.detail))
            except Exception as error:  # noqa: BLE001 - the border around one message
                rejected.append(_failed(delivery, error))
            else:
                readable.append((delivery, message.events))
                replays += [] if message.replay is None else [(delivery, message.replay)]
                rejected += [Rejected(delivery, why.reason, why.detail, part) for why, part in message.scraps]
        events = [event for _, events in readable for event in events]
        await self._outbox.prepare(events)
        committed, failed = await self._ledger.commit_apart(events)
        rejected += _culprits(readable, failed)
        kept = self._keep_early(readable, committed)
        rejected += [one for one in _refused(readable, committed) if one.delivery.tag not in kept]
        done = [delivery for delivery in deliveries if delivery.tag not in kept]
        for delivery in done:
            self._early.settle(delivery)
        return _Step(done, committed, rejected, replays)

    def _keep_early(self, readable: Sequence[tuple[Delivery, list[Event]]], committed: Sequence[Committed]) -> set[int]:
        """Keep commands in hand whose runs may be on their way; returns their tags."""
        early = set[UUID]().union(*(one.early for one in committed))
        if not early:
            return set()
        return {
            delivery.tag
            for delivery, events in readable
            if any(isinstance(event, Commanded) and event.command.id in early for event in events)
            and self._early.keep(delivery)
        }


def _culprits(
    readable: Sequence[tuple[Delivery, list[Event]]], failed: Sequence[tuple[Event, Exception]]
) -> Iterator[Rejected]:
    """What cannot be committed: of an array of results the one that is meant."""
    errors = {id(event): error for event, error in failed}
    for delivery, events in readable:
        for event in events:
            if (error := errors.get(id(event))) is not None:
                yield _failed(delivery, error, part_of(events, event), event.run_id)


def _failed(delivery: Delivery, error: Exception, part: bytes | None = None, run_id: str | None = None) -> Rejected:
    """A message that nobody can process; what is not expected has its traceback, in the log and in the dead letter."""
    expected = isinstance(error, FlowKitError)
    logger.error("a message from %s cannot be processed: %s", delivery.queue, error,
                 exc_info=None if expected else error, extra={"action": "batch_failed"})  # fmt: skip
    detail = str(error) if expected else "".join(traceback.format_exception(error))
    return Rejected(delivery, reason_of(error), detail, part, run_id)


def _refused(readable: Sequence[tuple[Delivery, list[Event]]], committed: Sequence[Committed]) -> Iterator[Rejected]:
    """Starts of runs that are something else already, results of strangers or of no run, commands without sense."""
    orphans = set[str]().union(*(one.orphans for one in committed))
    conflicts = [start for one in committed for start in one.conflicts]
    forbidden = [forbid for one in committed for forbid in one.forbidden]
    commands = {command: reason for one in committed for command, reason in one.refused.items()}
    if not (orphans or conflicts or forbidden or commands):
        return  # nearly always
    for delivery, events in readable:
        for event in events:
            if isinstance(event, Started) and any(start is event.start for start in conflicts):
                yield Rejected(delivery, "conflict", why_conflict(event.run_id))
            elif isinstance(event, Reported) and event.run_id in orphans:
                why_not = f"this store knows no run {event.run_id!r}"
                yield Rejected(delivery, "unknown-run", why_not, event.result.encode(), event.run_id)
            elif forbid := next((forbid for forbid in forbidden if forbid.event is event), None):
                said = forbid.event.result.encode()
                yield Rejected(delivery, "forbidden", why_forbidden(delivery, forbid), said, event.run_id)
            elif isinstance(event, Commanded) and event.command.id in commands:
                yield Rejected(delivery, "refused", commands[event.command.id])
