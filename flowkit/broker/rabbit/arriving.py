"""What stands beside a body that arrived, read when somebody asks for it."""

from __future__ import annotations

import struct

from flowkit import amqp
from flowkit.broker.protocol import Properties

COUNT, OFFSET = "x-delivery-count", "x-stream-offset"
_OFFSET = bytes([len(OFFSET)]) + OFFSET.encode() + b"l"  # its name in the table of headers, and that it has 64 bits


def read(arrived: amqp.Arrived) -> Properties:
    """The properties; without what cannot be read, so that nobody is stopped by what a stranger wrote.

    RabbitMQ lets through headers that stand in each other a thousand deep.
    """
    try:
        found = arrived.properties
    except amqp.MalformedProperties:
        return Properties()
    try:
        headers = dict(found.headers)
    except amqp.MalformedProperties:
        headers = {}
    count = headers.pop(COUNT, 0)
    headers.pop(OFFSET, None)
    return Properties(
        type=found.message_type,
        message_id=found.message_id,
        correlation_id=found.correlation_id,
        app_id=found.app_id,
        user_id=found.user_id,
        headers=headers,
        delivery_count=count if isinstance(count, int) else 0,
    )


def offset_of(arrived: amqp.Arrived) -> int | None:
    """Where it stands in its stream, also when its other headers cannot be read."""
    at = arrived.raw.find(_OFFSET)
    return None if at < 0 else struct.unpack_from(">q", arrived.raw, at + len(_OFFSET))[0]
