"""Declaring exchanges, queues and bindings, and looking at them."""

from __future__ import annotations

from collections.abc import Sequence

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq import ChannelAccessRefused
from aiormq.abc import AbstractChannel as UnderlayChannel

from flowkit.broker.protocol import QueueState
from flowkit.broker.rabbit.connection import answered, close_channel, guard, open_channel, open_underlay_channel
from flowkit.broker.rabbit.desk import Desk
from flowkit.broker.rabbit.faults import LinkLost, refused
from flowkit.broker.rabbit.link import Link
from flowkit.errors import AccessRefused, NotFound
from flowkit.wire.topology import Exchange, Part


async def declare(channel: AbstractChannel, part: Part) -> None:
    """Declare one part; after any error the broker has closed the channel.

    Raises:
        LinkLost
        ChannelClosed: 403, 404 and 405.
        Refused: it stands there with other arguments.
    """
    try:
        with guard():
            if isinstance(part, Exchange):
                await channel.declare_exchange(part.name, part.kind, durable=True)
                return
            queue = await channel.declare_queue(part.name, durable=True, arguments=dict(part.arguments))
            for binding in part.bindings:
                await queue.bind(binding.exchange, binding.key)
    except ChannelPreconditionFailed as error:
        raise refused(part, error) from None


async def declare_all(link: Link[Desk], parts: Sequence[Part]) -> list[Part]:
    """Declare all that permissions allow, over one connection.

    Returns:
        what they forbade.

    Raises:
        LinkLost: begin anew: behind the next connection may be a broker that has lost what was declared so far, and
            one that has just started may have a queue that is not ready.
        Refused
        NotFound: a binding names an exchange that is not there.
    """
    forbidden: list[Part] = []
    connection = (await link.connection()).connection
    channel = await open_channel(connection)
    try:
        for part in parts:
            if channel.is_closed:
                channel = await open_channel(connection)
            try:
                async with answered(f"declaring {part.name}"):
                    await declare(channel, part)
            except ChannelAccessRefused:
                forbidden.append(part)
            except ChannelNotFoundEntity as error:
                if "no exchange" not in str(error):
                    # "home node … of durable queue … is down": a broker that starts lets clients in before it has
                    # all of its queues (RabbitMQ 3.10 after a kill -9, with a stream).
                    raise LinkLost(str(error)) from None
                raise NotFound("exchange", str(error), f"Queue {part.name!r} is to be bound to it.") from None
    finally:
        await close_channel(channel)
    return forbidden


async def find_missing(link: Link[Desk], parts: Sequence[Part]) -> list[Part]:
    """Look for parts over one connection, without changing anything; those that may not be seen count as there.

    Raises:
        LinkLost: begin anew: behind the next connection may be another broker.
    """
    missing: list[Part] = []
    connection = (await link.connection()).connection
    channel = await open_underlay_channel(connection)
    try:
        for part in parts:
            if channel.is_closed:
                channel = await open_underlay_channel(connection)
            try:
                async with answered(f"looking for {part.name}"):
                    await _look_for(channel, part)
            except ChannelNotFoundEntity as error:
                if "no exchange" in str(error) or "no queue" in str(error):  # else it is there, and not ready
                    missing.append(part)
            except ChannelClosed:
                pass  # 403; 405 where it is another connection's own
    finally:
        await close_channel(channel)
    return missing


async def _look_for(channel: UnderlayChannel, part: Part) -> None:
    with guard():
        if isinstance(part, Exchange):
            await channel.exchange_declare(part.name, exchange_type=part.kind, passive=True)
        else:
            await channel.queue_declare(part.name, passive=True)


async def inspect(channel: UnderlayChannel, queue: str) -> QueueState | None:
    """Look at a queue without changing it; None when it does not exist."""
    try:
        with guard():
            found = await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return None
    except ChannelAccessRefused as error:
        raise AccessRefused(str(error)) from None
    return QueueState(found.message_count or 0, found.consumer_count or 0)


async def exists(channel: UnderlayChannel, exchange: Exchange) -> bool:
    """Whether an exchange exists."""
    try:
        with guard():
            await channel.exchange_declare(exchange.name, exchange_type=exchange.kind, passive=True)
    except ChannelNotFoundEntity:
        return False
    except ChannelAccessRefused as error:
        raise AccessRefused(str(error)) from None
    return True


async def delete(channel: UnderlayChannel, queue: str) -> None:
    """Delete a queue with all that is in it."""
    try:
        with guard():
            await channel.queue_delete(queue)
    except ChannelNotFoundEntity:
        pass
    except ChannelAccessRefused as error:
        raise AccessRefused(str(error)) from None
