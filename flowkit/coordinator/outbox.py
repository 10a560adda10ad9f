"""What was committed goes out: tasks, ends of runs, conflicts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from flowkit.broker.protocol import Broker, Outgoing
from flowkit.coordinator.commit import Committed
from flowkit.coordinator.ledger import Ledger
from flowkit.errors import NotFound, PublishError, Refused, TooLarge, Unroutable
from flowkit.flow.events import Event, Reported, Started
from flowkit.store.protocol import EndedRun, Sendable, SentMark
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import nodes_of, unwrap
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
WIPED = 0.1  # seconds between looks for exchanges that are gone

Summon = Callable[[str], Awaitable[str | None]]
"""Brings up a worker for a node before its first task; answers why it cannot, or None."""


class Outbox:
    """Publishes what follows from a batch, and knows what it has in its hands."""

    def __init__(
        self, broker: Broker, topology: Topology, ledger: Ledger, *, max_nodes: int, summon: Summon | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._broker, self._topology, self._ledger = broker, topology, ledger
        self._max_nodes, self._summon, self._clock = max_nodes, summon, clock
        self._declared: set[str] = set()
        self._queue_timeouts: dict[str, float] = {}
        self._generation = broker.generation

    def in_flight(self) -> set[SentMark]:
        """Tasks that wait to be sent, are being sent, or were and their rows do not say so yet."""
        return self._ledger.in_hand | self._ledger.unwritten()

    @property
    def queue_timeouts(self) -> Mapping[str, float]:
        """How long tasks of a node may wait to be taken, in seconds, where it says so."""
        return self._queue_timeouts

    def know(self, nodes: Iterable[wire.NodeInfo]) -> None:
        """Nodes as their workers announced them: how long their tasks may wait to be taken."""
        for node in nodes:
            if node.queue_timeout is None:
                self._queue_timeouts.pop(node.name, None)
            else:
                self._queue_timeouts[node.name] = node.queue_timeout

    async def prepare(self, events: Sequence[Event]) -> None:
        """Bring up the workers of nodes that these events name, where that is up to us.

        Their limits must be known before their tasks are made. Who cannot be brought up fails when a task is sent.
        """
        if self._summon is None:
            return
        named = {event.start.node for event in events if isinstance(event, Started)}
        for event in events:
            if isinstance(event, Reported):
                named.update(node for item in event.result.nodes for node in nodes_of(unwrap(item)))
        for node in sorted(named):
            await self._summon(node)

    async def deliver(self, committed: Committed) -> None:
        """Publish all that follows, and return when the broker has confirmed it."""
        while True:
            failures = await self.send(committed.tasks)
            await self._announce(committed)
            await self.tell(committed.controls)
            if not failures:
                return
            committed = await self._ledger.commit(failures)

    async def send(self, tasks: Sequence[Sendable]) -> list[Event]:
        """Publish tasks.

        Returns:
            the failures of tasks whose messages can never be sent.
        """
        if not tasks:
            return []
        marks = {task.mark for task in tasks}
        self._ledger.in_hand |= marks
        try:
            nodes = {task.node for task in tasks}
            await self.declare(nodes)
            absent = await self._absent(nodes)
            present = [task for task in tasks if task.node not in absent]
            failures: list[Event] = [
                _failure(task, "NodeNotFound", absent[task.node]) for task in tasks if task.node in absent
            ]
            epoch = self._ledger.epoch
            verdicts = await self._broker.publish([self._message(task) for task in present])
            confirmed: list[SentMark] = []
            for task, verdict in zip(present, verdicts, strict=True):
                if verdict is None:
                    confirmed.append(task.mark)
                else:
                    failures += self._refused(task, verdict)
            self._ledger.mark_sent(confirmed, epoch)
            return failures
        finally:
            self._ledger.in_hand -= marks

    async def declare(self, nodes: set[str]) -> None:
        """Make sure that these nodes have their queues."""
        if self._generation != self._broker.generation:
            self._generation = self._broker.generation
            self._declared.clear()
        missing = sorted(nodes - self._declared)
        if not missing:
            return
        if len(self._declared) + len(missing) > self._max_nodes:
            # Names of queues become atoms of the broker's runtime, which are never freed.
            logger.error("over %d node names: no queues for %s (setting max_nodes)", self._max_nodes, missing,
                         extra={"action": "max_nodes"})  # fmt: skip
            return
        for node in missing:
            await self._declare_node(node)
        self._declared.update(missing)

    async def _declare_node(self, node: str) -> None:
        while True:
            try:
                await self._broker.declare([self._topology.tasks(node)])
            except NotFound:
                # The broker was wiped a moment ago: whoever watches over that declares its exchanges, and then refills.
                await asyncio.sleep(WIPED)
            except Refused as error:
                # Somebody else declared this queue, with other arguments: its node may work all the same, and the other
                # nodes have nothing to do with it.
                logger.error("%s", error, extra={"action": "queue_differs", "node": node})  # noqa: TRY400
                return
            else:
                return

    async def tell(self, controls: Sequence[wire.Control]) -> None:
        """Workers are told as well as can be: a task that slips through is superseded."""
        exchange = self._topology.name("control")
        if controls:
            await self._broker.publish(
                [Outgoing(exchange, "", control.encode(), control.TYPE, durable=False) for control in controls]
            )

    async def _absent(self, nodes: set[str]) -> dict[str, str]:
        """Nodes that nobody here can run, where it is us who bring up the workers."""
        if self._summon is None:
            return {}
        answers = {node: await self._summon(node) for node in sorted(nodes)}
        return {node: why for node, why in answers.items() if why is not None}

    def _message(self, task: Sendable) -> Outgoing:
        body: dict[str, object] = {
            "v": wire.VERSION,
            "task_id": task.task_id,
            "run_id": task.run_id,
            "node": task.node,
            "inputs": codec.embed(task.inputs),
            "attempt": task.attempt,
            "tries": task.tries,
        }
        if task.first_started_at is not None:
            body["first_started_at"] = wire.rfc3339(task.first_started_at)
        if task.node in self._queue_timeouts:
            # The worker's own clock decides, so this process's does as well as the store's.
            body["start_by"] = wire.rfc3339(self._clock() + self._queue_timeouts[task.node])
        return Outgoing(
            exchange=self._topology.name("tasks"),
            key=task.node,
            body=codec.dumps(body),
            type=wire.Task.TYPE,
            correlation_id=task.run_id,
            app_id="flowkit",
            headers={} if task.traceparent is None else {"traceparent": task.traceparent},
        )

    def _refused(self, task: Sendable, verdict: PublishError) -> list[Event]:
        if isinstance(verdict, TooLarge):
            return [_failure(task, "TooLarge", f"the task's inputs cannot be sent: {verdict}")]
        if isinstance(verdict, Unroutable):
            self._declared.discard(task.node)  # somebody deleted its queue: the relay declares and sends again
        logger.error("task %s for node %s was not sent, trying again: %s", task.task_id, task.node, verdict,
                     extra={"action": "not_sent", "run_id": task.run_id, "node": task.node})  # fmt: skip
        return []

    async def _announce(self, committed: Committed) -> None:
        ended = committed.ended
        messages = [self._ended(run) for run in ended]
        for start in committed.conflicts:
            told = wire.RunEnded(
                run_id=start.run_id or "", node=start.node, status="conflict",
                message="the run exists already with another node or other inputs",
            )  # fmt: skip
            refused = {wire.REFUSED: wire.fingerprint(start)}  # others wait for the run that is there: not theirs
            messages.append(self._run_message(told, told.encode())._replace(headers=refused))
        for rerun in committed.unmade:
            told = wire.RunEnded(run_id=rerun.run_id, node=rerun.node, status="conflict", message=rerun.reason)
            messages.append(self._run_message(told, told.encode())._replace(headers={wire.REFUSED: str(rerun.id)}))
        if not messages:
            return
        verdicts = await self._broker.publish(messages)
        shorter = [
            self._ended(
                replace(run, outputs=None, message=f"{run.message} (outputs too large for a message: {verdict})")
            )
            for run, verdict in zip(ended, verdicts, strict=False)
            if isinstance(verdict, TooLarge)
        ]
        if shorter:
            verdicts += await self._broker.publish(shorter)
        for verdict in verdicts:
            if verdict is not None:
                logger.error("the end of a run was not announced: %s", verdict, extra={"action": "not_announced"})

    def _ended(self, run: EndedRun) -> Outgoing:
        body: dict[str, object] = {
            "v": wire.VERSION,
            "run_id": run.id,
            "node": run.node,
            "status": run.status,
            "outputs": None if run.outputs is None else codec.embed(run.outputs),
            "message": run.message,
        }
        if run.error is not None:
            body["error"] = codec.embed(run.error)
        if run.inputs is not None:
            body["fingerprint"] = wire.value_fingerprint(run.node, codec.loads(run.inputs))
        if run.parent is not None:
            body["parent"] = run.parent
        return self._run_message(run, codec.dumps(body))

    def _run_message(self, run: EndedRun | wire.RunEnded, body: bytes) -> Outgoing:
        return Outgoing(
            exchange=self._topology.name("runs"),
            key=f"{run.status}.{run.node}",
            body=body,
            type=wire.RunEnded.TYPE,
            mandatory=False,
            correlation_id=run.id if isinstance(run, EndedRun) else run.run_id,
            app_id="flowkit",
        )


def _failure(task: Sendable, kind: str, message: str) -> Reported:
    """The coordinator answers for a task that no worker will see."""
    return Reported(
        wire.Result(
            task_id=task.task_id,
            run_id=task.run_id,
            attempt=task.attempt,
            status=wire.Status.FAILED,
            error=wire.Error(type=kind, message=message),
        )
    )
