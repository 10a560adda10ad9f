"""What was committed goes out: tasks, control messages, ends of runs."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

from flowkit.broker.protocol import Broker, Outgoing
from flowkit.coordinator.announcing import RunAnnouncements
from flowkit.coordinator.commit import Committed
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.refusals import Refusals
from flowkit.errors import NotFound, PublishError, Refused, TooLarge, Unroutable
from flowkit.flow.events import Event, Reported, Started
from flowkit.flow.overdue import carries_timeout
from flowkit.store.protocol import Sendable, SentMark
from flowkit.wire import codec
from flowkit.wire import messages as wire
from flowkit.wire.items import nodes_of, unwrap
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)

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
        ledger.queue_timeouts = self._queue_timeouts
        self._generation = broker.generation
        self._over_limit: list[str] = []  # nodes that were last logged as being too many
        self.refusals = Refusals(topology)
        self.announcements = RunAnnouncements(broker, topology, ledger)

    def in_flight(self) -> set[SentMark]:
        """Tasks that wait to be sent, are being sent, or were and their rows do not say so yet."""
        return self._ledger.in_hand | self._ledger.unwritten()

    @property
    def declared_nodes(self) -> Collection[str]:
        """Nodes whose queues were declared on this connection."""
        return self._declared

    def forget_queue(self, name: str) -> None:
        """The queue of a node was deleted: it is declared when its node is met again."""
        self._declared.discard(name.removeprefix(self._topology.name("tasks", "")))

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

    async def deliver_all(self, commits: Sequence[Committed]) -> None:
        """Publish what follows from each of these, one after the other."""
        waiting = list(commits)
        try:
            while waiting:
                await self.deliver(waiting[0])
                del waiting[0]
        finally:
            for committed in waiting:
                self._ledger.release(committed.tasks)

    async def deliver(self, committed: Committed) -> None:
        """Publish all that follows, and return when the broker has confirmed it."""
        waiting = [committed]
        try:
            while waiting:
                failures = await self.send(waiting[0].tasks)
                await self.announcements.answer(waiting[0])
                await self.announcements.announce(waiting[0].ended)
                await self.tell(waiting[0].controls)
                waiting[:1] = await self._ledger.commit_possible(failures)
        finally:
            for left in waiting:
                self._ledger.release(left.tasks)

    async def send(self, tasks: Sequence[Sendable]) -> list[Event]:
        """Publish tasks, but those of nodes whose queues refuse them: these are left to ``RefusedTasks``.

        Returns:
            the failures of tasks whose messages can never be sent.
        """
        if len(self.refusals):
            held = {task.mark for task in tasks if self.refusals.holds(task.node)}
            self._ledger.in_hand -= held
            tasks = [task for task in tasks if task.mark not in held]
        failures, _ = await self.publish_tasks(tasks)
        return failures

    async def publish_tasks(self, tasks: Sequence[Sendable]) -> tuple[list[Event], list[Sendable]]:
        """Publish tasks, whatever their queues did before.

        Returns:
            the failures of tasks whose messages can never be sent; and tasks that were refused and stay unsent.
        """
        if not tasks:
            return [], []
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
            confirmed: list[Sendable] = []
            refused: list[tuple[Sendable, PublishError]] = []
            for task, verdict in zip(present, verdicts, strict=True):
                if verdict is None:
                    confirmed.append(task)
                elif isinstance(verdict, TooLarge):
                    failures.append(_failure(task, "TooLarge", f"the task's inputs cannot be sent: {verdict}"))
                else:
                    refused.append((task, verdict))
            self._ledger.mark_sent([task.mark for task in confirmed], epoch)
            if refused or len(self.refusals):
                self._record(confirmed, refused)
            return failures, [task for task, _ in refused]
        finally:
            self._ledger.in_hand -= marks

    def _record(self, confirmed: Sequence[Sendable], refused: Sequence[tuple[Sendable, PublishError]]) -> None:
        """Note which nodes' queues refused tasks, and which accepted some."""
        accepted = Counter(task.node for task in confirmed)
        counts = Counter(task.node for task, _ in refused)
        reasons = {task.node: verdict for task, verdict in refused}
        for node in {**accepted, **counts}:
            if isinstance(reasons.get(node), Unroutable):
                self._declared.discard(node)  # somebody deleted its queue: it is declared by the next attempt
            self.refusals.record(node, accepted[node], counts[node], reasons.get(node))

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
            if missing != self._over_limit:
                logger.error("over %d node names: no queues for %s (setting max_nodes)", self._max_nodes, missing,
                             extra={"action": "max_nodes"})  # fmt: skip
            self._over_limit = missing
            return
        for node in missing:
            try:
                await self._broker.declare([self._topology.tasks(node)])
            except NotFound:
                continue  # its exchanges are missing: whoever watches over them declares them, and the node comes again
            except Refused as error:
                # Somebody else declared this queue, with other arguments: its node may work all the same, and the other
                # nodes have nothing to do with it.
                logger.error("%s", error, extra={"action": "queue_differs", "node": node})  # noqa: TRY400
            self._declared.add(node)

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
        if task.node in self._queue_timeouts and carries_timeout(task.attempt, task.tries):
            # The worker goes by its own clock, so this process's does as well as the store's: the store's has the last
            # word when a worker refuses a task.
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
