"""The deliveries of one node's queue, turned into executions."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flowkit.broker.protocol import Consumer, Delivery
from flowkit.errors import Unreadable
from flowkit.wire.messages import Task, decode
from flowkit.worker.definition import Definition
from flowkit.worker.execution import Execution, Taken, key_of

SUSPECT_FROM = 2  # deliveries before this one; from then on a task runs alone

_log = logging.getLogger(__name__)
MOST_PREFETCHED = 65_535  # AMQP has two bytes for it


def prefetch_for(slots: int) -> int:
    """Unacknowledged deliveries for so many running tasks: a few more, so that a slot never waits for the network."""
    return min(slots + (slots + 3) // 4, MOST_PREFETCHED)


class Intake:
    """Takes the tasks of one node, about as many as it may run at a time.

    Args:
        definition: the node.
        consumer: of its queue.
        prefetch: how many deliveries it may have.
        taken: where executions are kept.
        begin: takes an execution in, and runs it when its turn comes.
    """

    def __init__(
        self,
        definition: Definition,
        consumer: Consumer,
        *,
        prefetch: int,
        taken: Taken,
        begin: Callable[[Execution], None],
    ) -> None:
        self.consumer = consumer
        self._definition, self._prefetch = definition, prefetch
        self._taken, self._begin = taken, begin
        self._closing = False

    async def run(self) -> None:
        """Take tasks until stopped.

        Raises:
            FlowKitError: the queue cannot be consumed, and trying again cannot help.
        """
        while batch := await self.consumer.receive(self._prefetch):
            if self._closing:
                await self.consumer.requeue(batch)
                continue
            known, unreadable = [], []
            for delivery in batch:
                try:
                    if not self._take(delivery):
                        known.append(delivery)
                except Unreadable as error:
                    _log.warning("a task message cannot be read and is given up: %s", error,
                                 extra={"action": "unreadable", "node": self._definition.name})  # fmt: skip
                    unreadable.append(delivery)
            if known:
                await self.consumer.ack(known)
            if unreadable:  # the coordinator finds them among the dead letters, and says why in the store
                await self.consumer.reject(unreadable)

    async def stop(self) -> None:
        """Take nothing more; what arrives all the same goes back."""
        self._closing = True
        await self.consumer.stop()

    def _take(self, delivery: Delivery) -> bool:
        """Take one delivery; False when it was answered already and only its acknowledgement was lost."""
        task = self._read(delivery)
        key = key_of(task)
        here = self._taken.get(key)
        if here is not None:
            # The connection was lost meanwhile: the task goes on, and a result answers this delivery too.
            here.came(self.consumer, delivery)
            return True
        if delivery.redelivered and self._taken.was_answered(key, delivery.message_id):
            return False
        suspect = delivery.delivery_count >= SUSPECT_FROM
        execution = Execution(key, task, self._definition, suspect, delivery.traceparent)
        execution.came(self.consumer, delivery)
        self._begin(execution)
        return True

    def _read(self, delivery: Delivery) -> Task:
        task = decode(Task, delivery.body)
        name = self._definition.name
        if task.node != name:
            raise Unreadable("wrong-node", f"a task of node {task.node!r} in the queue of {name!r}")
        return task
