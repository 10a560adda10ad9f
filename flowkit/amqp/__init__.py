"""AMQP 0-9-1 for what every message passes: published, confirmed, delivered and acknowledged in batches.

Made for speed: one callback for all that one read of the socket brings, no task and no future for a message, frames
from templates, one write for a batch. Rare frames are pamqp's. Why it is here: docs/decisions/0002-dependencies.md
"""

from flowkit.amqp.address import Address
from flowkit.amqp.channel import Channel
from flowkit.amqp.confirms import Outcome
from flowkit.amqp.connection import Connection, connect
from flowkit.amqp.errors import (
    AmqpError,
    ChannelClosed,
    ConnectionLost,
    LoginRefused,
    MalformedProperties,
    Nacked,
    NotAllowed,
    NotAmqp,
    ProtocolViolation,
    Returned,
)
from flowkit.amqp.events import Arrived
from flowkit.amqp.frames import Publication
from flowkit.amqp.properties import Properties, encode_properties

__all__ = [
    "Address",
    "AmqpError",
    "Arrived",
    "Channel",
    "ChannelClosed",
    "Connection",
    "ConnectionLost",
    "LoginRefused",
    "MalformedProperties",
    "Nacked",
    "NotAllowed",
    "NotAmqp",
    "Outcome",
    "Properties",
    "ProtocolViolation",
    "Publication",
    "Returned",
    "connect",
    "encode_properties",
]
