"""Looks after the exchanges and queues that a coordinator needs: what somebody deleted is declared again.

AMQP does not show bindings, so they are made again now and then, which changes nothing where they are there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from flowkit.broker.protocol import Broker
from flowkit.coordinator.archive import Archive, begin_stream
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.errors import NotFound, Refused
from flowkit.wire.topology import Exchange, Part, Queue, Topology

logger = logging.getLogger(__name__)
BINDINGS = 2  # looks from one renewal of the bindings to the next
NODES = 100  # queues of nodes in a look; the next one goes on behind them
REBOUND = 4.5  # seconds until clients have bound their queues to an exchange that was declared again (every 4)
MARGIN = 5.0  # seconds that the clocks of the store and of this process may differ over a few looks


class StandingParts:
    """The standing topology, and the queues of nodes.

    Args:
        broker: where they are.
        topology: the names there.
        ledger: of this coordinator.
        outbox: of this coordinator; it knows the nodes, and announces ends of runs.
        archive: reads the stream of logs.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, archive: Archive) -> None:
        self._broker, self._topology = broker, topology
        self._ledger, self._outbox, self._archive = ledger, outbox, archive
        self._looks = 0
        self._node = ""  # the last node whose queue was looked at
        self._forbidden: set[str] = set()  # parts that this login may not declare
        self._warned: set[str] = set()  # parts that are missing, and were logged as that
        # When the exchange for ends of runs was last seen, by the loop's clock
        self._present_at = asyncio.get_running_loop().time()
        self._unheard: tuple[float, float] | None = None  # until when, and since when, ends of runs may go unheard

    async def look(self, others: Sequence[Part] = ()) -> list[Part]:
        """One look.

        Args:
            others: parts that are looked for too, and left to the caller.

        Returns:
            those of ``others`` that are missing.
        """
        generation = self._broker.generation
        parts = (*self._topology.standing, *self._nodes())
        missing = await self._broker.missing((*parts, *others))
        if self._broker.generation != generation:
            return []  # whoever watches over reconnects declares everything
        lost = [part for part in missing if part not in others]
        left = [part for part in missing if part in others]
        if left:
            return left  # first it must be known whose broker it is
        self._warned &= {part.name for part in lost}
        for part in lost:
            if part in self._topology.standing:
                await self._declare_lost(part)
            else:
                self._forget_node(part)
        if self._looks % BINDINGS == 0 or any(isinstance(part, Exchange) for part in lost):
            await self._renew_bindings(part for part in self._topology.standing if part not in lost)
        self._looks += 1
        await self._note_runs(missing=self._topology.name("runs") in {part.name for part in lost})
        return []

    def _forget_node(self, queue: Part) -> None:
        """The next task or worker of the node has its queue declared: a node that nobody needs may lose it for good."""
        logger.warning("queue %s was deleted: tasks that were in it are sent again", queue.name,
                       extra={"action": "queue_deleted", "name_of_part": queue.name})  # fmt: skip
        self._outbox.forget_queue(queue.name)
        self._ledger.lost.set()

    def _nodes(self) -> list[Queue]:
        names = sorted(self._outbox.declared_nodes)
        names = [name for name in names if name > self._node][:NODES] or names[:NODES]
        self._node = names[-1] if len(names) == NODES else ""
        return [self._topology.tasks(name) for name in names]

    async def _declare_lost(self, part: Part) -> None:
        kind = "exchange" if isinstance(part, Exchange) else "queue"
        try:
            forbidden = await self._broker.declare([part])
        except (NotFound, Refused) as error:  # another one of them is missing, or stands there with other arguments
            self._warn(part, f"{kind} {part.name} was deleted and cannot be declared again: {error}")
            return
        if forbidden:
            self._forbidden.add(part.name)
            self._warn(part, f"{kind} {part.name} was deleted, and this login may not declare it: waiting for who may")
            return
        logger.warning("%s %s was deleted: it is declared again", kind, part.name,
                       extra={"action": "declared_again", "name_of_part": part.name})  # fmt: skip
        if part == self._topology.logs:
            await self._ledger.transact(begin_stream)
            await self._archive.restart()
        elif isinstance(part, Queue):
            self._ledger.lost.set()

    def _warn(self, part: Part, text: str) -> None:
        if part.name not in self._warned:
            logger.warning("%s", text, extra={"action": "part_missing", "name_of_part": part.name})
        self._warned.add(part.name)

    async def _renew_bindings(self, parts: Iterable[Part]) -> None:
        bound = [part for part in parts if isinstance(part, Queue) and part.bindings]
        for part in bound:
            if part.name in self._forbidden:
                continue
            try:
                self._forbidden |= {one.name for one in await self._broker.declare([part])}
            except (NotFound, Refused) as error:
                self._warn(part, f"queue {part.name} cannot be bound: {error}")

    async def _note_runs(self, *, missing: bool) -> None:
        """Have announced again what nobody heard while the exchange for ends of runs was missing or had no bindings.

        Their rows are marked, so that the relay announces them, a page at a time, whoever dies meanwhile: when the
        exchange is missed, and once more when clients have bound their queues, for what ended in between.
        """
        now = asyncio.get_running_loop().time()
        if missing:
            first, self._unheard = self._unheard is None, (now + REBOUND, self._present_at - MARGIN)
            if first:  # what ends from now on is not confirmed, and stays marked
                await self._mark_unannounced(now - self._unheard[1])
        else:
            self._present_at = now
        if self._unheard is not None and now >= self._unheard[0]:
            (_, since), self._unheard = self._unheard, None
            count = await self._mark_unannounced(now - since)
            logger.info("the ends of %d runs are announced again", count, extra={"action": "announced_again"})

    async def _mark_unannounced(self, ago: float) -> int:
        await self._ledger.flush_now()  # or what was confirmed a moment ago would be marked as announced after this
        return await self._ledger.transact(lambda transaction: transaction.mark_unannounced(transaction.now() - ago))
