"""Ends of runs and refusals, announced to the clients that wait for them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowkit.broker.protocol import Broker, Outgoing
from flowkit.coordinator.commit import Committed
from flowkit.coordinator.ledger import Ledger
from flowkit.errors import PublishError, QueueFull, TooLarge, Unroutable
from flowkit.store.protocol import EndedRun, EndMark
from flowkit.wire import bounds, codec
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
KEPT, KEPT_BYTES = 1_000, 16 * 1024 * 1024  # answers that were refused and are published again
PATIENCE = 60.0  # seconds that each of these answers is tried again: one client's full queue refuses for all
GIVE_UP = 600.0  # seconds that the end of a run is announced again while the queue of a client is full


class RunAnnouncements:
    """Publishes the ends of runs, and answers to those who asked for a run that will not be.

    An ended run is marked in its row until the broker has confirmed the message: what is refused, because the exchange
    is missing or the queue of a client is full, stays marked, and the relay publishes it again. Nothing waits for it.

    Args:
        broker: where to.
        topology: the names there.
        ledger: writes that an end was confirmed.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger) -> None:
        self._broker, self._exchange, self._ledger = broker, topology.name("runs"), ledger
        self._publishing: set[EndMark] = set()
        self._refused_since: dict[EndMark, float] = {}  # by a full queue, by the loop's clock
        self._refused: deque[tuple[float, Outgoing]] = deque()  # until when, by the loop's clock, and what

    def in_flight(self) -> set[EndMark]:
        """Ends that are being published, or were and their rows do not say so yet."""
        return self._publishing | self._ledger.unwritten_ends()

    async def announce(self, ended: Sequence[EndedRun]) -> None:
        """Publish ends of runs."""
        if not ended:
            return
        marks = {run.mark for run in ended}
        self._publishing |= marks
        try:
            verdicts = await self._broker.publish([self._ended(run) for run in ended])
            for index, (run, verdict) in enumerate(zip(ended, verdicts, strict=True)):
                if isinstance(verdict, TooLarge):
                    why = f"{run.message} (outputs too large for a message: {verdict})"
                    (verdicts[index],) = await self._broker.publish(
                        [self._ended(replace(run, outputs=None, message=why))]
                    )
            self._ledger.mark_announced(
                run.mark for run, verdict in zip(ended, verdicts, strict=True) if self._is_settled(run, verdict)
            )
        finally:
            self._publishing -= marks
        if refused := [verdict for verdict in verdicts if verdict is not None]:
            logger.warning("the ends of %d runs are announced later: %s", len(refused), refused[0],
                           extra={"action": "announced_later"})  # fmt: skip

    def _is_settled(self, run: EndedRun, verdict: PublishError | None) -> bool:
        """Whether its end is not to be announced again.

        The full queue of one client refuses a message that all others have got: that does not go on for ever.
        """
        now = asyncio.get_running_loop().time()
        if isinstance(verdict, QueueFull) and now - self._refused_since.setdefault(run.mark, now) <= GIVE_UP:
            return False
        self._refused_since.pop(run.mark, None)
        return verdict is None or isinstance(verdict, QueueFull)

    async def answer(self, committed: Committed) -> None:
        """Publish what a commit has for those who asked for a run that will not be.

        What they asked is delivered again until this has returned.
        """
        messages = []
        for start in committed.conflicts:
            told = wire.RunEnded(
                run_id=start.run_id or "", node=start.node, status="conflict",
                message="the run exists already with another node or other inputs",
            )  # fmt: skip
            refused = {wire.REFUSED: wire.fingerprint(start)}  # others wait for the run that is there: not theirs
            messages.append(self._message(told, told.encode())._replace(headers=refused))
        for rerun in committed.unmade:
            told = wire.RunEnded(
                run_id=rerun.run_id, node=rerun.node, status="conflict", message=bounds.cut(rerun.reason)
            )
            messages.append(self._message(told, told.encode())._replace(headers={wire.REFUSED: str(rerun.id)}))
        if messages:
            await self._publish(messages)

    async def retry(self) -> None:
        """Publish answers that were refused before."""
        if not self._refused:
            return
        now = asyncio.get_running_loop().time()
        kept, self._refused = self._refused, deque()
        live = [(until, message) for until, message in kept if until > now]
        if len(live) < len(kept):
            logger.error("%d answers to clients were not published: they were refused for %g s", len(kept) - len(live),
                         PATIENCE, extra={"action": "not_announced"})  # fmt: skip
        if live:
            verdicts = await self._broker.publish([message for _, message in live])
            self._refused.extendleft(
                one for one, verdict in zip(reversed(live), reversed(verdicts), strict=True) if verdict is not None
            )

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        verdicts = await self._broker.publish(messages)
        refused = [
            message
            for message, verdict in zip(messages, verdicts, strict=True)
            if isinstance(verdict, Unroutable | QueueFull)
        ]
        if refused:
            why = next(verdict for verdict in verdicts if isinstance(verdict, Unroutable | QueueFull))
            logger.warning("%d answers to clients are published later: %s", len(refused), why,
                           extra={"action": "announced_later"})  # fmt: skip
            until = asyncio.get_running_loop().time() + PATIENCE
            self._refused.extend((until, message) for message in refused)
            self._bound()
        for verdict in verdicts:
            if verdict is not None and not isinstance(verdict, Unroutable | QueueFull):
                logger.error("an answer to a client was not published: %s", verdict, extra={"action": "not_announced"})

    def _bound(self) -> None:
        """Give up the oldest of too many."""
        size, dropped = sum(len(message.body) for _, message in self._refused), 0
        while len(self._refused) > KEPT or size > KEPT_BYTES:
            size -= len(self._refused.popleft()[1].body)
            dropped += 1
        if dropped:
            logger.error("%d answers to clients were not published: too many are refused", dropped,
                         extra={"action": "not_announced"})  # fmt: skip

    def _ended(self, run: EndedRun) -> Outgoing:
        body: dict[str, object] = {
            "v": wire.VERSION,
            "run_id": run.id,
            "node": run.node,
            "status": run.status,
            "outputs": None if run.outputs is None else codec.embed(run.outputs),
            "message": bounds.cut(run.message),
        }
        if run.error is not None:
            body["error"] = _within_bounds(codec.loads(run.error))
        if run.inputs is not None:
            body["fingerprint"] = wire.value_fingerprint(run.node, codec.loads(run.inputs))
        if run.parent is not None:
            body["parent"] = run.parent
        return self._message(run, codec.dumps(body))

    def _message(self, run: EndedRun | wire.RunEnded, body: bytes) -> Outgoing:
        return Outgoing(
            exchange=self._exchange,
            key=f"{run.status}.{run.node}",
            body=body,
            type=wire.RunEnded.TYPE,
            mandatory=False,
            correlation_id=run.id if isinstance(run, EndedRun) else run.run_id,
            app_id="flowkit",
        )


def _within_bounds(error: dict[str, Any]) -> dict[str, Any]:
    """An error that was kept before its texts had bounds, as clients can read it."""
    limits = {"type": bounds.ERROR_TYPE, "message": bounds.TEXT, "traceback": bounds.TEXT}
    cut = {name: bounds.cut(text, limits[name]) for name in limits if isinstance(text := error.get(name), str)}
    cause = error.get("cause")
    return error | cut | ({"cause": _within_bounds(cause)} if isinstance(cause, dict) else {})
