"""Receives the ends of runs and resolves the futures of those who wait for them.

The listener consumes an exclusive queue of its own, from before the first start is published. RabbitMQ deletes such a
queue when its connection ends, together with the messages in it. So after each reconnect the starts and reruns of all
pending runs are published again: for a run that has ended, the coordinator announces the end once more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4
from weakref import WeakValueDictionary

from flowkit.broker import Broker, Consumer
from flowkit.client.session import CLOSED
from flowkit.errors import Conflict, FlowKitError, Refused, Unreadable, UsageError
from flowkit.wire import messages as wire
from flowkit.wire.stored import read_stored
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)

RECONNECT_POLL = 0.5  # seconds between two checks for a new connection


@dataclass(eq=False)
class PendingRun:
    """A run whose end a client waits for. The listener holds only a weak reference to it."""

    request: wire.Start | wire.Command  # a start, or a rerun
    end: asyncio.Future[wire.RunEnded | FlowKitError] = field(default_factory=asyncio.Future)
    ended: bool = False  # the run has ended; False when ``end`` only says that nobody listens any more

    @property
    def run_id(self) -> str:
        """The id of the run."""
        run_id = self.request.run_id if isinstance(self.request, wire.Start) else self.request.new_run_id
        assert run_id is not None, "a client always sets the run's id"
        return run_id

    @property
    def fingerprint(self) -> str:
        """Distinguishes this request from other requests for a run with the same id."""
        if isinstance(self.request, wire.Start):
            return wire.value_fingerprint(self.request.node, self.request.inputs)
        return str(self.request.id)

    def handle(self, ended: wire.RunEnded, refused: str | None) -> None:
        """Resolve the end, if this message is about this request.

        Args:
            ended: a run with this id has ended, or a request for one was refused.
            refused: fingerprint of the request that was refused; None from older coordinators and for a run that ended.
        """
        start = self.request if isinstance(self.request, wire.Start) else None
        if start is not None and ended.node != start.node:
            return  # the run of another client, or its conflict with this one
        if ended.status != "conflict":
            if self._is_own(ended):
                self._resolve_ended(ended)
        elif refused is not None and refused == (wire.fingerprint(start) if start else self.fingerprint):
            self._resolve_ended(Conflict(ended.run_id) if start else Refused(ended.message))
        elif refused is None and start is not None:
            self._resolve_ended(Conflict(ended.run_id))

    def _is_own(self, ended: wire.RunEnded) -> bool:
        """Return whether this request began the run that has ended.

        If not, the run of another client with this id ended before the coordinator read this request; it will refuse
        the request. Older coordinators do not send the fingerprint.
        """
        if ended.fingerprint is None:
            return True
        if isinstance(self.request, wire.Start):
            return ended.fingerprint == self.fingerprint
        return ended.parent == self.request.run_id

    def _resolve_ended(self, outcome: wire.RunEnded | FlowKitError) -> None:
        self.ended = self.ended or not self.end.done()
        self.resolve(outcome)

    def resolve(self, outcome: wire.RunEnded | FlowKitError) -> None:
        """Set the end; the first outcome counts."""
        if not self.end.done():
            self.end.set_result(outcome)


class RunEndListener:
    """Consumes the ends of runs for one client.

    Args:
        broker: connected.
        topology: names of exchanges and queues.
        resend: publishes these starts and reruns again.
    """

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        resend: Callable[[Sequence[wire.Start | wire.Command]], Awaitable[None]],
    ) -> None:
        self._broker, self._topology, self._resend = broker, topology, resend
        self._pending: WeakValueDictionary[str, PendingRun] = WeakValueDictionary()
        self._failure: FlowKitError | None = None
        self._opening = asyncio.Lock()
        self._consumer: Consumer | None = None
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start to consume, unless started; when this returns, no message published later can be missed."""
        async with self._opening:
            if self._consumer is None:
                # One message at a time would be a round trip for each of many runs.
                self._consumer = self._broker.consume(self._topology.runs(uuid4().hex), prefetch=500)
                self._listening = asyncio.create_task(self._run(self._consumer), name="flowkit client run ends")
        await self._consumer.wait_connected()

    def register(self, request: wire.Start | wire.Command) -> PendingRun:
        """Register the run that this start or rerun begins; call it before the request is published.

        Raises:
            Conflict: this client waits for a run of that id with another node or other inputs.
        """
        pending = PendingRun(request)
        registered = self._pending.setdefault(pending.run_id, pending)
        if registered is not pending and registered.fingerprint != pending.fingerprint:
            raise Conflict(registered.run_id)
        if self._failure is not None:
            registered.resolve(self._failure)
        return registered

    async def close(self) -> None:
        """Stop consuming."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait((self._listening,))  # await would confuse its cancellation with that of the caller
            if not self._listening.cancelled():
                with suppress(FlowKitError):  # every pending run has it
                    self._listening.result()
        if self._consumer is not None:
            await self._consumer.close()

    async def _run(self, consumer: Consumer) -> None:
        receive = asyncio.create_task(self._receive(consumer))
        watch = asyncio.create_task(self._resend_after_reconnects(consumer))
        try:
            await asyncio.wait((receive, watch), return_when=asyncio.FIRST_COMPLETED)
            for task in (receive, watch):
                if task.done():
                    task.result()
        except FlowKitError as error:
            self._fail_all(error)
            raise
        except BaseException:
            self._fail_all(UsageError(CLOSED))
            raise
        finally:
            receive.cancel()
            watch.cancel()
            await asyncio.gather(receive, watch, return_exceptions=True)

    async def _receive(self, consumer: Consumer) -> None:
        while deliveries := await consumer.receive(500):
            for delivery in deliveries:
                try:
                    self._handle(_decode(delivery.body), delivery.headers.get(wire.REFUSED))
                except Unreadable as error:
                    logger.warning("a run message that cannot be read: %s", error, extra={"action": "unreadable"})
            await consumer.ack(deliveries)

    def _handle(self, ended: wire.RunEnded, refused: str | None) -> None:
        pending = self._pending.get(ended.run_id)
        if pending is not None:
            pending.handle(ended, refused)

    async def _resend_after_reconnects(self, consumer: Consumer) -> None:
        reconnects = 0  # the connection may have been lost before this task starts
        while True:
            await asyncio.sleep(RECONNECT_POLL)
            if consumer.reconnects != reconnects and consumer.connected:
                reconnects = consumer.reconnects
                await self._resend(
                    [pending.request for pending in list(self._pending.values()) if not pending.end.done()]
                )

    def _fail_all(self, error: FlowKitError) -> None:
        self._failure = error
        for pending in list(self._pending.values()):
            pending.resolve(error)


def _decode(body: bytes) -> wire.RunEnded:
    """Decode the end of a run; texts of older coordinators that are over the limits of the contract are cut."""
    try:
        return wire.decode(wire.RunEnded, body)
    except Unreadable as error:
        ended = read_stored(wire.RunEnded, body) if error.reason == "invalid" else None
        if ended is None:
            raise
        return ended
