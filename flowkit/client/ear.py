"""Hears the ends of runs and tells those who wait.

It listens from before the first start is published, on an exclusive queue of its own. Such a queue is gone with its
connection, and with it what was announced meanwhile; so after every reconnect the starts and reruns of all runs that
are still waited for are sent again: the coordinator answers that of an ended run by announcing its end once more.
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

RECONNECT_LOOK = 0.5  # seconds between two looks whether the connection was made anew


@dataclass(eq=False)
class Awaited:
    """A run whose end is waited for. Forgotten by the ear when nobody holds it any more."""

    asked: wire.Start | wire.Command  # a start, or a rerun
    end: asyncio.Future[wire.RunEnded | FlowKitError] = field(default_factory=asyncio.Future)
    ended: bool = False  # the end is known, and not only that nobody listens for it any more

    @property
    def run_id(self) -> str:
        """The run."""
        run_id = self.asked.run_id if isinstance(self.asked, wire.Start) else self.asked.new_run_id
        assert run_id is not None, "a client always says the run's id"
        return run_id

    @property
    def mark(self) -> str:
        """What tells it from others that ask for a run of the same id."""
        if isinstance(self.asked, wire.Start):
            return wire.value_fingerprint(self.asked.node, self.asked.inputs)
        return str(self.asked.id)

    def tell(self, ended: wire.RunEnded, refused: str | None) -> None:
        """A run of this id has ended, or what asked for one was refused: the one with the mark ``refused``."""
        start = self.asked if isinstance(self.asked, wire.Start) else None
        if start is not None and ended.node != start.node:
            return  # somebody else's run, or somebody else's conflict with ours
        if ended.status != "conflict":
            if self._began(ended):
                self._hear(ended)
        elif refused is not None and refused == (wire.fingerprint(start) if start else self.mark):
            self._hear(Conflict(ended.run_id) if start else Refused(ended.message))
        elif refused is None and start is not None:
            self._hear(Conflict(ended.run_id))

    def _began(self, ended: wire.RunEnded) -> bool:
        """Whether this asked for the run that has ended.

        If not, somebody else's run of this id ended before the coordinator has read what this client sent; its answer
        is a refusal, which follows. Older coordinators do not say with what a run began.
        """
        if ended.fingerprint is None:
            return True
        return (
            ended.fingerprint == self.mark if isinstance(self.asked, wire.Start) else ended.parent == self.asked.run_id
        )

    def _hear(self, how: wire.RunEnded | FlowKitError) -> None:
        self.ended = self.ended or not self.end.done()
        self.settle(how)

    def settle(self, how: wire.RunEnded | FlowKitError) -> None:
        """It ended; the first word counts."""
        if not self.end.done():
            self.end.set_result(how)


class Ear:
    """One client's ear.

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
        self._awaited: WeakValueDictionary[str, Awaited] = WeakValueDictionary()
        self._failure: FlowKitError | None = None
        self._opening = asyncio.Lock()
        self._consumer: Consumer | None = None
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen, if it does not yet; returns when nothing published from now on can be missed."""
        async with self._opening:
            if self._consumer is None:
                # One message at a time would be a round trip for each of many runs.
                self._consumer = self._broker.consume(self._topology.runs(uuid4().hex), prefetch=500)
                self._listening = asyncio.create_task(self._run(self._consumer), name="flowkit client ear")
        await self._consumer.wait_connected()

    def expect(self, asked: wire.Start | wire.Command) -> Awaited:
        """Wait for the end of the run that this start or rerun begins; call it before that is published.

        Raises:
            Conflict: this client waits for a run of that id that begins otherwise.
        """
        awaited = Awaited(asked)
        there = self._awaited.setdefault(awaited.run_id, awaited)
        if there is not awaited and there.mark != awaited.mark:
            raise Conflict(there.run_id)
        if self._failure is not None:
            there.settle(self._failure)
        return there

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait((self._listening,))  # so that a cancellation of the caller is not taken for that one
            if not self._listening.cancelled():
                with suppress(FlowKitError):  # those who waited were told
                    self._listening.result()
        if self._consumer is not None:
            await self._consumer.close()

    async def _run(self, consumer: Consumer) -> None:
        listen = asyncio.create_task(self._listen(consumer))
        watch = asyncio.create_task(self._watch(consumer))
        try:
            await asyncio.wait((listen, watch), return_when=asyncio.FIRST_COMPLETED)
            for task in (listen, watch):
                if task.done():
                    task.result()
        except FlowKitError as error:
            self._fail(error)
            raise
        except BaseException:
            self._fail(UsageError(CLOSED))
            raise
        finally:
            listen.cancel()
            watch.cancel()
            await asyncio.gather(listen, watch, return_exceptions=True)

    async def _listen(self, consumer: Consumer) -> None:
        while deliveries := await consumer.receive(500):
            for delivery in deliveries:
                try:
                    self._tell(_read(delivery.body), delivery.headers.get(wire.REFUSED))
                except Unreadable as error:
                    logger.warning("a run message that cannot be read: %s", error, extra={"action": "unreadable"})
            await consumer.ack(deliveries)

    def _tell(self, ended: wire.RunEnded, refused: str | None) -> None:
        awaited = self._awaited.get(ended.run_id)
        if awaited is not None:
            awaited.tell(ended, refused)

    async def _watch(self, consumer: Consumer) -> None:
        seen = 0  # it may have been lost before this begins
        while True:
            await asyncio.sleep(RECONNECT_LOOK)
            if consumer.reconnects != seen and consumer.connected:
                seen = consumer.reconnects
                await self._resend([one.asked for one in list(self._awaited.values()) if not one.end.done()])

    def _fail(self, error: FlowKitError) -> None:
        self._failure = error
        for awaited in list(self._awaited.values()):
            awaited.settle(error)


def _read(body: bytes) -> wire.RunEnded:
    """The end of a run; what an older coordinator says at greater length than the contract allows is cut."""
    try:
        return wire.decode(wire.RunEnded, body)
    except Unreadable as error:
        ended = read_stored(wire.RunEnded, body) if error.reason == "invalid" else None
        if ended is None:
            raise
        return ended
