"""What stands beside a body that arrived, read when somebody asks for it."""

from __future__ import annotations

from flowkit import amqp
from flowkit.broker.protocol import PlainProperties, Properties

OFFSET = "x-stream-offset"
_OFFSET = bytes([len(OFFSET)]) + OFFSET.encode() + b"l"  # its name in the table of headers, and that it has 64 bits


def read(arrived: amqp.Arrived) -> Properties:
    """The properties; without what cannot be read, so that nobody is stopped by what a stranger wrote.

    RabbitMQ lets through headers that stand in each other a thousand deep.
    """
    try:
        found = arrived.properties
    except amqp.MalformedProperties:
        return PlainProperties()
    try:
        _ = found.headers
    except amqp.MalformedProperties:
        return PlainProperties(found.message_type, found.message_id, found.correlation_id, found.app_id, found.user_id)
    return found


def offset_of(arrived: amqp.Arrived, expected: object) -> int | None:
    """Where a message stands in its stream.

    Args:
        arrived: the message.
        expected: where the next one stands, a number, when one has been read. It counts where headers cannot be read:
            what looks like the broker's header there may be the stranger's.
    """
    try:
        found = arrived.properties.headers.get(OFFSET)
    except amqp.MalformedProperties:
        if isinstance(expected, int):
            return expected
        at = arrived.raw.find(_OFFSET) + len(_OFFSET)
        found = int.from_bytes(arrived.raw[at : at + 8], "big", signed=True) if at >= len(_OFFSET) else None
    return found if isinstance(found, int) else None
