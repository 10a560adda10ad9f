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
from flowkit.errors import PublishError, QueueFull, TooLarge, Unroutable
from flowkit.store.protocol import EndedRun
from flowkit.wire import bounds, codec
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
KEPT, KEPT_BYTES = 1_000, 16 * 1024 * 1024  # announcements that were refused and are published again
PATIENCE = 60.0  # seconds that each of them is tried again: one client's full queue refuses for all


class RunAnnouncements:
    """Publishes the ends of runs.

    What is refused, because the exchange is missing or the queue of a client is full, is published again later: nothing
    else waits for it.

    Args:
        broker: where to.
        topology: the names there.
    """

    def __init__(self, broker: Broker, topology: Topology) -> None:
        self._broker, self._exchange = broker, topology.name("runs")
        self._refused: deque[tuple[float, Outgoing]] = deque()  # until when, by the loop's clock, and what

    async def announce(self, committed: Committed) -> None:
        """Publish all that a commit has for clients."""
        ended = committed.ended
        messages = [self._ended(run) for run in ended]
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
        if not messages:
            return
        verdicts = await self._publish(messages)
        shorter = [
            self._ended(
                replace(run, outputs=None, message=f"{run.message} (outputs too large for a message: {verdict})")
            )
            for run, verdict in zip(ended, verdicts, strict=False)
            if isinstance(verdict, TooLarge)
        ]
        if shorter:
            await self._publish(shorter)

    async def retry(self) -> None:
        """Publish what was refused before."""
        if not self._refused:
            return
        now = asyncio.get_running_loop().time()
        kept, self._refused = self._refused, deque()
        live = [(until, message) for until, message in kept if until > now]
        if len(live) < len(kept):
            logger.error("the ends of %d runs were not announced: they were refused for %g s", len(kept) - len(live),
                         PATIENCE, extra={"action": "not_announced"})  # fmt: skip
        if live:
            verdicts = await self._broker.publish([message for _, message in live])
            self._refused.extendleft(
                one for one, verdict in zip(reversed(live), reversed(verdicts), strict=True) if verdict is not None
            )

    async def _publish(self, messages: Sequence[Outgoing]) -> list[PublishError | None]:
        verdicts = await self._broker.publish(messages)
        refused = [
            message
            for message, verdict in zip(messages, verdicts, strict=True)
            if isinstance(verdict, Unroutable | QueueFull)
        ]
        if refused:
            why = next(verdict for verdict in verdicts if isinstance(verdict, Unroutable | QueueFull))
            logger.warning("the ends of %d runs are announced later: %s", len(refused), why,
                           extra={"action": "announced_later"})  # fmt: skip
            until = asyncio.get_running_loop().time() + PATIENCE
            self._refused.extend((until, message) for message in refused)
            self._bound()
        for verdict in verdicts:
            if verdict is not None and not isinstance(verdict, Unroutable | QueueFull):
                logger.error("the end of a run was not announced: %s", verdict, extra={"action": "not_announced"})
        return verdicts

    def _bound(self) -> None:
        """Give up the oldest of too many."""
        size, dropped = sum(len(message.body) for _, message in self._refused), 0
        while len(self._refused) > KEPT or size > KEPT_BYTES:
            size -= len(self._refused.popleft()[1].body)
            dropped += 1
        if dropped:
            logger.error("the ends of %d runs were not announced: too many are refused", dropped,
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
