"""Which broker belongs to which store. Recognised by markers (durable exchanges), never guessed.

| marker of any store | marker of this store | what it means |
| --- | --- | --- |
| absent | absent | a new broker; or a wiped one, when this store has sent tasks to this address: refill |
| present | absent | another store's broker: refuse |
| any | present | ours; refill all the same when the store says that it was half marked |

Half marked: a coordinator died, or the broker was wiped once more, while the markers were declared. Then they may stand
on a broker that has lost what it was refilled with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from flowkit.broker.protocol import Broker, Consumer
from flowkit.coordinator.archive import Archive
from flowkit.coordinator.commit import REFILLS, refills
from flowkit.coordinator.ledger import Ledger
from flowkit.coordinator.outbox import Outbox
from flowkit.coordinator.standing import StandingParts
from flowkit.errors import WrongBroker
from flowkit.store.protocol import Transaction
from flowkit.wire.topology import Exchange, Topology

logger = logging.getLogger(__name__)
MARKED = "marked"  # a fact of the store: half, from the refill until the markers stand for certain


class Identity:
    """Claims the broker at the start, and looks again after every reconnect."""

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, outbox: Outbox, archive: Archive, *,
                 store_id: str, take_over: bool, every: float) -> None:  # fmt: skip
        self._broker, self._topology, self._ledger = broker, topology, ledger
        self._archive = archive
        self._standing = StandingParts(broker, topology, ledger, outbox, archive)
        self._restored = False  # a marker was declared again; whether on this broker shows at the next look
        self._store_id, self._take_over, self._every = store_id, take_over, every
        self._generation = broker.generation
        self._address = f"{broker.url} namespace {topology.namespace}"

    async def claim(self) -> None:
        """Make the broker ours, refilling it when it was wiped.

        Raises:
            WrongBroker: it belongs to another store, or this store to another broker.
        """
        any_store, this_store = self._topology.marker(), self._topology.marker(self._store_id)
        while True:
            # From before the first look: what is behind a later connection is looked at again.
            self._generation = generation = self._broker.generation
            there = await self._broker.exists(this_store)
            ours = there and not await self._ledger.transact(_is_half_marked)
            if not there and not self._take_over:
                await self._check(any_store)
            await self._broker.declare(self._topology.standing)
            if not ours:
                await self._refill()
            if self._broker.generation != generation:
                continue
            if not ours:
                # Ours first: killed in between, this store must not find a broker that seems to belong to another one.
                await self._broker.declare([this_store, any_store])
            if self._broker.generation == generation:
                break
        await self._ledger.transact(self._claimed)

    async def watch(self, consumers: Sequence[Consumer]) -> None:
        """For ever: after every reconnect declare the topology, recognise a wipe, and have sent what was stranded.

        Now and then it looks for what somebody has deleted. It never sends tasks itself: a publish may have to wait for
        a connection, and after a wipe the topology is declared here.

        Args:
            consumers: of this coordinator, whose queues may be deleted and declared again by others in between.
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
        """Declare again what was deleted, the markers among it.

        A marker that is missing may be the first sign of a wipe: the store says that the broker is half marked until
        the next look has found the same connection, so that a marker on a new broker does not count.
        """
        any_store, this_store = self._topology.marker(), self._topology.marker(self._store_id)
        missing = await self._standing.look((any_store, this_store))
        if self._broker.generation != self._generation:
            return
        if len(missing) == 2:
            await self.claim()  # nothing says that it was ever used: wiped, or emptied by hand, which comes to the same
            self._ledger.released.set()
        elif missing:
            logger.warning("marker %s was deleted: it is declared again", missing[0].name,
                           extra={"action": "declared_again", "name_of_part": missing[0].name})  # fmt: skip
            await self._ledger.transact(lambda transaction: transaction.set_meta(MARKED, "half"))
            self._restored = True
            await self._broker.declare(missing)
        elif self._restored:
            self._restored = False
            await self._ledger.transact(lambda transaction: transaction.set_meta(MARKED, "yes"))

    async def _check(self, any_store: Exchange) -> None:
        """Refuse a broker of another store, and another broker than this store's."""
        if await self._broker.exists(any_store):
            raise WrongBroker(
                f"broker {self._address} belongs to another store than {self._store_id[:8]}. Use that store "
                "(--store), another --namespace, or 'flowkit coordinator --take-over' to make this one its owner."
            )
        known = await self._ledger.transact(lambda transaction: transaction.meta("broker"))
        if known is not None and known != self._address:
            raise WrongBroker(
                f"this store's runs live on broker {known}, not on {self._address}. "
                "Correct --broker and --namespace, or use 'flowkit coordinator --take-over' to move the runs."
            )

    def _claimed(self, transaction: Transaction) -> None:
        transaction.set_meta("broker", self._address)
        transaction.set_meta(MARKED, "yes")

    async def _refill(self) -> None:
        """Everything outstanding is to be sent again; the history of logs begins anew."""

        def work(transaction: Transaction) -> tuple[int, int]:
            transaction.archive([], None)
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
