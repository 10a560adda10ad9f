"""Short words for what the tests ask a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pamqp import commands

from flowkit.amqp import Arrived, Channel, Publication, encode_properties


async def declare(channel: Channel, queue: str, *, durable: bool = False, **arguments: object) -> None:
    """A queue that goes with the connection, unless it is durable."""
    given = {name.replace("_", "-"): value for name, value in arguments.items()}
    await channel.call(
        commands.Queue.Declare(queue=queue, durable=durable, exclusive=not durable, arguments=given)  # type: ignore[arg-type]
    )


async def count(channel: Channel, queue: str) -> int:
    """How many messages are ready in a queue."""
    answer = await channel.call(commands.Queue.Declare(queue=queue, passive=True))
    assert isinstance(answer, commands.Queue.DeclareOk)
    assert answer.message_count is not None
    return answer.message_count


def message(key: str, body: bytes = b"{}", *, exchange: str = "", message_id: str = "m", **more: object) -> Publication:
    properties = encode_properties(content_type="application/json", message_id=message_id, **more)  # type: ignore[arg-type]
    return exchange, key, True, message_id, properties, body


class Collected:
    """What has arrived, for ``Channel.consume``; ``expect`` waits until so many have."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.reads = 0
        self._enough = asyncio.Event()
        self._wanted = 0

    def __call__(self, arrived: list[Arrived]) -> None:
        self.reads += 1
        self.arrived += arrived
        if len(self.arrived) >= self._wanted:
            self._enough.set()

    async def expect(self, number: int) -> list[Arrived]:
        self._wanted = number
        if len(self.arrived) < number:
            self._enough.clear()
            await self._enough.wait()
        return self.arrived


def bodies(arrived: Iterable[Arrived]) -> list[bytes]:
    return [one.body for one in arrived]
