"""Reading the log stream of a broker: from an offset, up to now or for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from flowkit.broker import Broker
from flowkit.cli.render.output import say
from flowkit.errors import Unreadable
from flowkit.wire import messages as wire
from flowkit.wire.topology import Topology

QUIET = 1.0  # seconds without a message: the end of a stream, which has no mark for it
CONNECT = 5.0  # seconds for the stream to answer


@dataclass(slots=True)
class Reached:
    """How far a stream was read."""

    offset: int | None = None


async def newest(broker: Broker, topology: Topology) -> int | None:
    """The offset of the newest message, None when there is none."""
    reached = Reached()
    async for _ in stream(broker, topology, "last", quiet=QUIET, reached=reached):
        pass
    return reached.offset


async def stream(
    broker: Broker, topology: Topology, offset: int | str, *, quiet: float | None, reached: Reached | None = None
) -> AsyncIterator[wire.Log]:
    """Lines of the stream from an offset; with ``quiet`` it ends at what is newer than now, or after that silence."""
    consumer = broker.consume(topology.logs, prefetch=1_000, offset=offset)
    begun = time.time()
    try:
        try:
            async with asyncio.timeout(CONNECT):
                await consumer.wait_connected()
        except TimeoutError:
            say(f"flowkit: {broker.url} has no log stream {topology.logs.name!r} yet: start a coordinator or a worker")
            if quiet is not None:
                return
        while True:
            try:
                async with asyncio.timeout(quiet):
                    deliveries = await consumer.receive(1_000)
            except TimeoutError:
                return
            for delivery in deliveries:
                try:
                    found, bad = wire.decode_each(wire.Log, delivery.body)
                except Unreadable as error:
                    found, bad = [], [error]
                if bad:
                    say(f"flowkit: a log message at offset {delivery.offset} cannot be read: {bad[0]}")
                if quiet is not None and found and found[0].ts > begun:
                    return
                if reached is not None:
                    reached.offset = delivery.offset
                for log in found:
                    yield log
            await consumer.ack(deliveries)
    finally:
        await consumer.close()
