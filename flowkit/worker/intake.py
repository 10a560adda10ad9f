"""The deliveries of one node's queue, turned into executions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from flowkit.broker.protocol import Consumer, Delivery, Outgoing
from flowkit.errors import TooLarge, Unreadable
from flowkit.wire.messages import DETAIL, REASON, Task, decode
from flowkit.wire.topology import Topology
from flowkit.worker.definition import Definition
from flowkit.worker.execution import Execution, Taken
from flowkit.worker.reporter import Letter, Reporter

SUSPECT_FROM = 2  # deliveries before this one; from then on a task runs alone
_DETAIL = 1_000  # characters of an explanation in a header
_KEPT = 64 * 1024  # bytes of a body that is larger than we may send


def prefetch_for(slots: int) -> int:
    """Unacknowledged deliveries for so many running tasks: a few more, so that a slot never waits for the network."""
    return slots + (slots + 3) // 4


class Intake:
    """Takes the tasks of one node, as many as it may run at a time.

    Args:
        definition: the node.
        consumer: of its queue.
        topology: the names on the broker.
        slots: how many of its tasks run at a time.
        taken: where executions are kept.
        reporter: publishes what cannot be read to the dead letters.
        begin: takes an execution in, and runs it when a slot is free.
    """

    def __init__(
        self,
        definition: Definition,
        consumer: Consumer,
        topology: Topology,
        *,
        slots: int,
        taken: Taken,
        reporter: Reporter,
        begin: Callable[[Execution, asyncio.Semaphore], None],
    ) -> None:
        self.consumer = consumer
        self._definition, self._topology = definition, topology
        self._slots, self._prefetch = asyncio.Semaphore(slots), prefetch_for(slots)
        self._taken, self._reporter, self._begin = taken, reporter, begin
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
            known = [delivery for delivery in batch if not self._take(delivery)]
            if known:
                await self.consumer.ack(known)

    async def stop(self) -> None:
        """Take nothing more; what arrives all the same goes back."""
        self._closing = True
        await self.consumer.stop()

    def _take(self, delivery: Delivery) -> bool:
        """Take one delivery; False when it was answered already and only its acknowledgement was lost."""
        try:
            task = self._read(delivery)
        except Unreadable as error:
            self._reporter.post(self._dead_letter(delivery, error))
            return True
        here = self._taken.get(task)
        if here is not None:
            # The connection was lost meanwhile: the task goes on, and its result answers this delivery too.
            here.deliveries.append((self.consumer, delivery))
            return True
        if delivery.redelivered and self._taken.was_answered(task):
            return False
        suspect = delivery.delivery_count >= SUSPECT_FROM
        traceparent = delivery.headers.get("traceparent")
        execution = Execution(task, self._definition, suspect, traceparent, [(self.consumer, delivery)])
        self._begin(execution, self._slots)
        return True

    def _read(self, delivery: Delivery) -> Task:
        task = decode(Task, delivery.body)
        name = self._definition.name
        if task.node != name:
            raise Unreadable("wrong-node", f"a task of node {task.node!r} in the queue of {name!r}")
        return task

    def _dead_letter(self, delivery: Delivery, error: Unreadable) -> Letter:
        # Properties are kept, x-* headers are the broker's own and never copied.
        kept = {name: value for name, value in delivery.headers.items() if not name.startswith("x-")}
        message = Outgoing(
            self._topology.name("dead"),
            delivery.queue,
            delivery.body,
            delivery.type or "",
            correlation_id=delivery.correlation_id,
            app_id=delivery.app_id,
            headers=kept | {REASON: error.reason, DETAIL: error.detail[:_DETAIL]},
        )
        return self._letter(message, delivery)

    def _letter(self, message: Outgoing, delivery: Delivery) -> Letter:
        def too_large(_: TooLarge) -> Letter:
            detail = f"{message.headers[DETAIL]} (the first {_KEPT:,} of {len(message.body):,} bytes are kept)"
            headers = {**message.headers, DETAIL: detail}
            return self._letter(replace(message, body=message.body[:_KEPT], headers=headers), delivery)

        return Letter(message, lambda: [(self.consumer, delivery)], too_large)
