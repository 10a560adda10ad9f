"""The beginning of a connection: who is there, who we are, what is agreed on, which virtual host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from pamqp import commands
from pamqp.common import FieldTable

from flowkit.amqp.address import Address
from flowkit.amqp.errors import FRAME_ERROR, UNEXPECTED_FRAME, ConnectionLost, LoginRefused, NotAllowed, NotAmqp
from flowkit.amqp.frames import PROTOCOL_HEADER
from flowkit.amqp.machine import FRAME_MAX

if TYPE_CHECKING:
    from flowkit.amqp.connection import Connection

CHANNEL_MAX = 2047  # RabbitMQ's own default
LEAST_FRAME_MAX = 4096  # bytes that every side must take
CAPABILITIES = {
    "authentication_failure_close": True,  # a refused login is said, not only cut off
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}
_ACCESS_REFUSED, _NOT_ALLOWED = 403, 530


async def shake_hands(
    connection: Connection, address: Address, heartbeat: int, properties: Mapping[str, object]
) -> Mapping[str, object]:
    """Begin a connection; return what the broker says of itself.

    Raises:
        NotAmqp, LoginRefused, NotAllowed, ConnectionLost
    """
    connection.write(PROTOCOL_HEADER)
    start = await _begin(connection)
    if "PLAIN" not in start.mechanisms.split():
        raise LoginRefused(f"the broker takes logins by {start.mechanisms or 'nothing'}, but not by PLAIN")
    tune = await _log_in(connection, address, properties)
    agreed = commands.Connection.TuneOk(
        channel_max=lower(tune.channel_max or 0, CHANNEL_MAX),
        frame_max=lower(tune.frame_max or 0, FRAME_MAX),
        heartbeat=lower(tune.heartbeat or 0, heartbeat),
    )
    if agreed.frame_max < LEAST_FRAME_MAX:
        raise NotAmqp(f"frames of {agreed.frame_max} bytes at most: AMQP takes {LEAST_FRAME_MAX}")
    connection.write(connection.written(0, agreed))
    connection.tune(frame_max=agreed.frame_max, channel_max=agreed.channel_max, heartbeat=agreed.heartbeat)
    opening = commands.Connection.Open(virtual_host=address.vhost)
    try:
        await connection.ask(opening, commands.Connection.OpenOk)
    except ConnectionLost as lost:
        if lost.code in (_NOT_ALLOWED, _ACCESS_REFUSED):
            raise NotAllowed(lost.text) from None
        raise
    return start.server_properties or {}


async def _begin(connection: Connection) -> commands.Connection.Start:
    try:
        start = await connection.ask(None, commands.Connection.Start)
    except ConnectionLost as lost:
        if lost.code in range(FRAME_ERROR, UNEXPECTED_FRAME + 1):  # it spoke, but not as a broker does
            raise NotAmqp(lost.text) from None
        raise
    assert isinstance(start, commands.Connection.Start)
    return start


async def _log_in(
    connection: Connection, address: Address, properties: Mapping[str, object]
) -> commands.Connection.Tune:
    login = commands.Connection.StartOk(
        client_properties=cast("FieldTable", {**properties, "capabilities": CAPABILITIES}),
        mechanism="PLAIN",
        response=f"\0{address.user}\0{address.password}",
        locale="en_US",
    )
    try:
        tune = await connection.ask(login, commands.Connection.Tune)
    except ConnectionLost as lost:
        if lost.code == _ACCESS_REFUSED:
            raise LoginRefused(lost.text) from None
        raise
    assert isinstance(tune, commands.Connection.Tune)
    return tune


def lower(ours: int, theirs: int) -> int:
    """The lower of two limits, where 0 means none."""
    return min(ours, theirs) or max(ours, theirs)
