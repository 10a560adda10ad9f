"""Which store owns a broker. The broker decides, by one queue whose arguments name the store (``Topology.owner``).

The first declaration makes the queue; RabbitMQ refuses (406) every declaration with other arguments, so that of several
stores that declare it at the same moment one is the owner.

| the queue | its message | what it means |
| --- | --- | --- |
| absent | | a new broker, or a wiped one: refill, then declare it |
| names another store | | another store's broker: end; with ``take_over``, once: delete it and declare it anew |
| names this store | present | this store's broker; refill all the same when the store says that it was half marked |
| names this store | absent | definitions were imported into a wiped broker: refill |

Half marked: a coordinator died, or the broker was wiped once more, between the refill and the declaration. The queue
may then stand on a broker that has lost what it was refilled with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from flowkit.broker.protocol import Broker, Consumer, Outgoing
from flowkit.coordinator.archive import Archive, begin_stream
from flowkit.coordinator.commit import REFILLS, refills
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.standing import StandingParts
from flowkit.errors import AccessRefused, NotSent, QueueFull, Refused, Unroutable, WrongBroker
from flowkit.store.protocol import Transaction
from flowkit.wire.topology import Topology

logger = logging.getLogger(__name__)
MARKED = "marked"  # a fact of the store: half, from the refill until the queue and its message stand for certain
OWNER = "owner"  # a fact of the store: it has declared the queue once, so that markers of earlier versions say nothing
HANDOVER = 3  # intervals of looks that a new owner waits for the coordinators of the old one


class Identity:
    """Claims the broker at the start, and checks the claim after every reconnect and at intervals.

    Args:
        broker: to be owned.
        topology: the names there.
        ledger: of this coordinator.
        outbox: of this coordinator.
        archive: reads the stream of logs.
        store_id: the owner to be.
        take_over: end another store's ownership, the first time only: a coordinator whose broker is taken over later
            ends, although it once took the broker over itself.
        every: seconds between checks.
    """

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, archive: Archive, *,
                 store_id: str, take_over: bool, every: float) -> None:  # fmt: skip
        self._broker, self._topology, self._ledger = broker, topology, ledger
        self._archive = archive
        self._standing = StandingParts(broker, topology, ledger, outbox, archive)
        self._store_id, self._take_over, self._every = store_id, take_over, every
        self._owner = topology.owner(store_id)
        self._generation = broker.generation
        self._address = f"{broker.url} namespace {topology.namespace}"

    async def claim(self) -> None:
        """Make the broker this store's, refilling it when it was wiped.

        Raises:
            WrongBroker: it belongs to another store, or this store to another broker.
            AccessRefused: the login may not declare the queue.
        """
        taken = False
        while True:
            # From before the first question: what is behind a later connection is checked again.
            self._generation = generation = self._broker.generation
            stands = not await self._broker.missing([self._owner])
            if stands and not await self._declare_owner():
                await self._end_other_owner()
                stands, taken = False, True
            elif stands:
                stands = not await self._is_emptied()
            ours = stands or (not taken and await self._was_ours())
            ours = ours and not await self._ledger.transact(_is_half_marked)
            await self._broker.declare(self._topology.standing)
            if not ours:
                await self._refill()
            if self._broker.generation != generation:
                continue
            if not (ours and stands) and not await self._mark():
                continue
            if self._broker.generation == generation:
                break
        await self._ledger.transact(self._claimed)
        self._take_over = False
        if taken:
            await self._wait_handover()

    async def watch(self, consumers: Sequence[Consumer]) -> None:
        """For ever: after every reconnect declare the topology, recognise a wipe, and have sent what was stranded.

        Now and then it looks for what somebody has deleted. It never sends tasks itself: a publish may have to wait for
        a connection, and after a wipe the topology is declared here.

        Args:
            consumers: of this coordinator, whose queues may be deleted and declared again by others in between.

        Raises:
            WrongBroker: another store has taken the broker over.
        """
        deletions = 0
        next_look = asyncio.get_running_loop().time() + self._every
        while True:
            await asyncio.sleep(0.2)
            await self._broker.wait_connected()
            if self._broker.generation != self._generation:
                await self.claim()
                self._ledger.released.set()
            elif asyncio.get_running_loop().time() >= next_look:
                await self.look()
                if deletions != (deletions := sum(consumer.deletions for consumer in consumers)):
                    self._ledger.lost.set()
                next_look = asyncio.get_running_loop().time() + self._every

    async def look(self) -> None:
        """Check the claim, and declare again what was deleted.

        Raises:
            WrongBroker: another store has taken the broker over.
        """
        missing = await self._standing.look((self._owner,))
        if self._broker.generation != self._generation:
            return
        if not missing and not await self._declare_owner():
            raise self._foreign()
        if missing or await self._is_emptied():
            await self.claim()  # nothing says that it was ever used: wiped, or emptied by hand, which comes to the same
            self._ledger.released.set()

    async def _declare_owner(self) -> bool:
        """Declare the queue that names this store; False when it names another one."""
        try:
            forbidden = await self._broker.declare([self._owner])
        except Refused:
            return False
        if forbidden:
            raise AccessRefused(
                f"this login may not declare queue {self._owner.name}, which says whose broker it is. "
                "Give it the rights of a coordinator: 'flowkit broker definitions --help'."
            )
        return True

    async def _end_other_owner(self) -> None:
        """Delete the queue of the other store; whoever declares it next is the owner."""
        if not self._take_over:
            raise self._foreign()
        logger.warning("taking broker %s over from another store", self._address, extra={"action": "take_over"})
        await self._broker.delete(self._owner.name)

    async def _mark(self) -> bool:
        """Declare the queue and put its message into it; False when everything is to be checked again."""
        if not await self._declare_owner():
            if self._take_over:
                return False
            raise self._foreign()
        message = Outgoing("", self._owner.name, b"{}", "flowkit.owner")
        (verdict,) = await self._broker.publish([message])
        if isinstance(verdict, Unroutable | QueueFull | NotSent):  # deleted in between, or somebody's policy
            await asyncio.sleep(0.2)
            return False
        if verdict is not None:
            raise AccessRefused(f"this login may not publish to queue {self._owner.name}: {verdict}")
        return True

    async def _is_emptied(self) -> bool:
        """Whether the queue has lost its message. RabbitMQ counts none either while a quorum queue has no leader."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._every
        while (state := await self._broker.inspect(self._owner.name)) is None or not state.ready:
            if clock() >= until:
                return True
            await asyncio.sleep(min(0.2, self._every))
        return False

    async def _was_ours(self) -> bool:
        """Whether a broker without an owner has the marker by which earlier versions knew that it was this store's.

        Raises:
            WrongBroker: it has another store's, or this store's runs live on another broker.
        """
        known, declared = await self._ledger.transact(lambda transaction: (transaction.meta("broker"),
                                                                           transaction.meta(OWNER)))  # fmt: skip
        marked = await self._broker.exists(self._topology.marker(self._store_id))
        if marked and not declared:
            return True
        if self._take_over:
            return False
        if not marked and await self._broker.exists(self._topology.marker()):
            raise self._foreign()
        if known is not None and known != self._address:
            raise WrongBroker(
                f"this store's runs live on broker {known}, not on {self._address}. "
                "Correct --broker and --namespace, or use 'flowkit coordinator --take-over' to move the runs."
            )
        return False

    def _foreign(self) -> WrongBroker:
        return WrongBroker(
            f"broker {self._address} belongs to another store than {self._store_id[:8]}. Use that store "
            "(--store), another --namespace, or 'flowkit coordinator --take-over' to make this one its owner."
        )

    async def _wait_handover(self) -> None:
        """Return when the coordinators of the former owner have gone: until then they take this store's results."""
        name, clock = self._topology.results.name, asyncio.get_running_loop().time
        until = clock() + HANDOVER * self._every
        while (state := await self._broker.inspect(name)) is not None and state.consumers:
            if clock() >= until:
                logger.warning("%d consumers of %s are left: stop those of the former owner", state.consumers, name,
                               extra={"action": "former_owner", "consumers": state.consumers})  # fmt: skip
                return
            await asyncio.sleep(min(0.2, self._every))

    def _claimed(self, transaction: Transaction) -> None:
        transaction.set_meta("broker", self._address)
        transaction.set_meta(MARKED, "yes")
        transaction.set_meta(OWNER, "declared")

    async def _refill(self) -> None:
        """Everything outstanding is to be sent again; the history of logs begins anew."""

        def work(transaction: Transaction) -> tuple[int, int]:
            begin_stream(transaction)
            transaction.set_meta(MARKED, "half")
            # Behind the rows: who has one of them locked may be about to look at the number.
            stranded, number = transaction.unsend_all(), refills(transaction) + 1
            transaction.set_meta(REFILLS, str(number))
            return stranded, number

        stranded, number = await self._ledger.transact(work)
        self._ledger.forget_sent(number)
        await self._archive.restart()
        if stranded:
            logger.warning("the broker is empty: sending %d outstanding tasks again", stranded,
                           extra={"action": "refill", "tasks": stranded})  # fmt: skip


def _is_half_marked(transaction: Transaction) -> bool:
    return transaction.meta(MARKED) == "half"
