"""The history of logs: one archiver at a time reads the stream into the store.

It commits the stream's offset with the lines, so that it neither loses nor doubles any.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from flowkit.broker.protocol import Broker, Consumer, Delivery
from flowkit.coordinator.dropped import Dropped
from flowkit.coordinator.isolation import SURROUNDINGS, Skipped, process_apart
from flowkit.coordinator.ledger import Ledger
from flowkit.errors import Unreadable
from flowkit.store.protocol import Transaction
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

BATCH = 500
STREAM = "stream"  # a fact of the store: the number of times that the stream of logs was a new one


def begin_stream(transaction: Transaction) -> None:
    """The stream of logs is a new one: offsets begin anew, and lines of the former one that are read are dropped."""
    transaction.archive([], None)
    transaction.set_meta(STREAM, str(int(transaction.meta(STREAM) or 0) + 1))


class Archive:
    """Archives log lines while it holds the claim, which lasts ``lease`` seconds and is renewed with every batch."""

    def __init__(self, broker: Broker, topology: Topology, ledger: Ledger, *, owner: str, lease: float) -> None:
        self._broker, self._topology, self._ledger = broker, topology, ledger
        self._owner, self._lease = owner, lease
        self._skipped = Skipped("log lines", "bad_log")
        self._consumer: Consumer | None = None
        self._stream: str | None = None  # which one is read; an offset alone does not show it before the first commit
        self._stopping = asyncio.Event()
        self.dropped = Dropped("log message", "bad_log")

    async def run(self) -> None:
        """Until stopped: claim, read, and claim again when another one took over or the stream is a new one."""
        while not self._stopping.is_set():
            if await self._claim():
                await self._read()
            else:
                await self._wait(self._lease)

    async def restart(self) -> None:
        """Read the offset again: the stream is a new one."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def stop(self) -> None:
        """End after what has been read."""
        self._stopping.set()
        await self.restart()

    async def _claim(self) -> bool:
        def work(transaction: Transaction) -> bool:
            return transaction.archive_claim(self._owner, transaction.now(), self._lease)

        return await self._ledger.transact(work)

    async def _read(self) -> None:
        offset, self._stream = await self._ledger.transact(
            lambda transaction: (transaction.archive_offset(), transaction.meta(STREAM))
        )
        start: int | str = "first" if offset is None else offset + 1
        self._consumer = consumer = self._broker.consume(self._topology.logs, prefetch=2 * BATCH, offset=start)
        try:
            if self._stopping.is_set():
                return
            while True:
                deliveries = await self._receive(consumer)
                if deliveries is None:
                    return
                if not await self._keep(deliveries, offset):
                    return  # another one archives now, or the stream is a new one
                if deliveries:
                    offset = deliveries[-1].offset
                    await consumer.ack(deliveries)
        finally:
            self._consumer = None
            await consumer.close()

    async def _receive(self, consumer: Consumer) -> Sequence[Delivery] | None:
        """The next lines; nothing when the claim is to be renewed without any, None when there will be no more."""
        try:
            async with asyncio.timeout(self._lease / 2):
                return await consumer.receive(BATCH) or None
        except TimeoutError:
            return ()

    async def _keep(self, deliveries: Sequence[Delivery], before: int | None) -> bool:
        """Add lines behind ``before``; False when the store has gone on from elsewhere, so that they mean nothing."""
        lines = [line for delivery in deliveries for line in self._lines(delivery)]
        after = deliveries[-1].offset if deliveries else before
        try:
            return await self._archive(lines, before, after)
        except SURROUNDINGS:
            raise
        except Exception:
            if not lines:
                raise
        # A line cannot be kept: the offset waits until all others are.
        kept, failed = await process_apart(lines, lambda some: self._archive(some, before, before))
        for line, error in failed:
            self._skipped.add(f"of worker {line.worker}, run {line.run_id}", error)
        return all(kept) and await self._archive([], before, after)

    async def _archive(self, lines: Sequence[wire.Log], before: int | None, after: int | None) -> bool:
        """Add lines, and move the offset on from ``before``; False when that is not where it stands."""

        def work(transaction: Transaction) -> bool:
            if not transaction.archive_claim(self._owner, transaction.now(), self._lease):
                return False
            if transaction.archive_offset() != before or transaction.meta(STREAM) != self._stream:
                return False
            if lines or after != before:
                transaction.archive(lines, after)
            return True

        return await self._ledger.transact(work)

    def _lines(self, delivery: Delivery) -> list[wire.Log]:
        """The lines of a message; of an array those that can be read."""
        try:
            lines, bad = wire.decode_each(wire.Log, delivery.body)
        except Unreadable as error:
            lines, bad = [], [error]
        for why in bad:
            self.dropped.add(why, f"at offset {delivery.offset}")
        return lines

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
