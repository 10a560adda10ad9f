"""Queues of one connection: declared by their consumer, on the connection that they belong to."""

from __future__ import annotations

from pamqp import commands

from flowkit import amqp
from flowkit.wire.topology import Queue


async def declare(channel: amqp.Channel, queue: Queue) -> None:
    """Declare an exclusive queue and bind it.

    Raises:
        ChannelClosed
        ConnectionLost
    """
    await channel.call(commands.Queue.Declare(queue=queue.name, exclusive=True, arguments=dict(queue.arguments)))
    await bind(channel, queue)


async def bind(channel: amqp.Channel, queue: Queue) -> None:
    """Bind it to its exchanges; a binding that is there stays as it is.

    Raises:
        ChannelClosed: 404 where an exchange is missing.
        ConnectionLost
    """
    for binding in queue.bindings:
        await channel.call(commands.Queue.Bind(queue=queue.name, exchange=binding.exchange, routing_key=binding.key))


async def delete(channel: amqp.Channel, queue: Queue) -> None:
    """Delete it with all that is in it."""
    await channel.call(commands.Queue.Delete(queue=queue.name))
