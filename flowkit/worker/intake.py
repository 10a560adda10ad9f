"""The deliveries of one node's queue, turned into executions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from flowkit.broker.protocol import Consumer, Delivery
from flowkit.errors import Unreadable
from flowkit.wire.messages import Task, decode
from flowkit.worker.definition import Definition
from flowkit.worker.execution import Execution, Taken, key_of

SUSPECT_FROM = 2  # deliveries before this one; from then on a task runs alone

MOST_PREFETCHED = 65_535  # AMQP has two bytes for it

_log = logging.getLogger(__name__)


class Intake:
    """Takes the tasks of one node, as many as it may run at a time.

    Args:
        definition: the node.
        consume: begins to consume its queue, with so many unacknowledged deliveries at a time.
        slots: how many of its tasks run at a time.
        taken: where executions are kept.
        begin: takes an execution in, and runs it when its turn comes.
    """

    def __init__(
        self,
        definition: Definition,
        consume: Callable[[int], Consumer],
        *,
        slots: int,
        taken: Taken,
        begin: Callable[[Execution], None],
    ) -> None:
        self._definition, self._consume = definition, consume
        self.slots = slots = min(slots, MOST_PREFETCHED)
        self._taken, self._begin = taken, begin
        self._group = asyncio.TaskGroup()
        self._consumers: dict[Consumer, int] = {consume(slots): slots}  # and what each may hold
        self._closing = asyncio.Event()
        self.waiting = asyncio.Event()  # set when a task was taken whose turn has not come

    @property
    def node(self) -> str:
        """The name of the node."""
        return self._definition.name

    @property
    def consumers(self) -> Mapping[Consumer, int]:
        """The consumers of the queue that it has now, with the prefetch of each."""
        return MappingProxyType(self._consumers)

    @property
    def connected(self) -> bool:
        """Whether deliveries can arrive now, as far as they shall."""
        return all(consumer.connected for consumer in self._consumers)

    async def wait_connected(self) -> None:
        """Return when ``connected`` for the first time.

        Raises:
            FlowKitError: as ``run``.
        """
        for consumer in list(self._consumers):
            await consumer.wait_connected()

    async def run(self) -> None:
        """Take tasks until stopped.

        Raises:
            FlowKitError: the queue cannot be consumed, and trying again cannot help.
        """
        try:
            async with self._group:
                for consumer in list(self._consumers):
                    self._group.create_task(self._receive(consumer))
                await self._closing.wait()  # there may be no consumer for a while
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._closing.set()

    def add_consumer(self, prefetch: int) -> None:
        """Consume with one more consumer, which holds so many tasks at a time; when stopping, nothing."""
        if not self._closing.is_set():
            consumer = self._consume(prefetch)
            self._consumers[consumer] = prefetch
            self._group.create_task(self._receive(consumer))

    def drop_consumer(self, consumer: Consumer) -> None:
        """Take nothing more from this one, which the caller stops: what arrives all the same goes back."""
        self._consumers.pop(consumer, None)

    async def stop(self) -> None:
        """Take nothing more; what arrives all the same goes back."""
        self._closing.set()
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers))

    async def close(self) -> None:
        """Let go of what was not acknowledged."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))

    async def _receive(self, consumer: Consumer) -> None:
        while batch := await consumer.receive(self.slots):
            if self._closing.is_set() or consumer not in self._consumers:
                await consumer.requeue(batch)
                continue
            known, unreadable = [], []
            for delivery in batch:
                try:
                    if not self._take(consumer, delivery):
                        known.append(delivery)
                except Unreadable as error:
                    _log.warning("a task message cannot be read and is given up: %s", error,
                                 extra={"action": "unreadable", "node": self._definition.name})  # fmt: skip
                    unreadable.append(delivery)
            if known:
                await consumer.ack(known)
            if unreadable:  # the coordinator finds them among the dead letters, and says why in the store
                await consumer.reject(unreadable)

    def _take(self, consumer: Consumer, delivery: Delivery) -> bool:
        """Take one delivery; False when it was answered already and only its acknowledgement was lost."""
        task = self._read(delivery)
        key = key_of(task)
        here = self._taken.get(key)
        if here is not None:
            # The connection was lost meanwhile: the task goes on, and a result answers this delivery too.
            here.came(consumer, delivery)
            return True
        if delivery.redelivered and self._taken.was_answered(key, delivery.message_id):
            return False
        suspect = delivery.delivery_count >= SUSPECT_FROM
        execution = Execution(key, task, self._definition, suspect, delivery.traceparent)
        execution.came(consumer, delivery)
        self._begin(execution)
        if execution.since is None:
            self.waiting.set()
        return True

    def _read(self, delivery: Delivery) -> Task:
        task = decode(Task, delivery.body)
        name = self._definition.name
        if task.node != name:
            raise Unreadable("wrong-node", f"a task of node {task.node!r} in the queue of {name!r}")
        return task
