"""What can go wrong between here and RabbitMQ, sorted: lost, refused, or our own mistake."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping

from flowkit import amqp
from flowkit.addresses import without_query
from flowkit.broker.refusal import mismatch
from flowkit.errors import BrokerUnreachable, FlowKitError, Refused
from flowkit.wire.topology import Part

OPEN = 10.0  # seconds for a connection or a channel to be opened
CLOSE = 3.0  # seconds for a polite end


class LinkLost(Exception):
    """The connection or the channel is gone; what was under way may or may not have happened."""


class LinkClosed(FlowKitError):
    """The broker object was closed by its owner."""


def cancel_requests() -> int:
    """How often the current asyncio task was asked to cancel, so that a request that a library swallows is seen."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def unreachable(url: str, error: BaseException) -> BrokerUnreachable:
    """Why a connection could not be made, in a few words, and whether trying again cannot help.

    Args:
        url: the address.
        error: what connecting raised.
    """
    cause = error.__cause__ or error
    match error:
        case amqp.NotAllowed(text=words):
            why = words.removeprefix("NOT_ALLOWED - ")
            final = "not found" in words or "refused for user" in words
        case amqp.LoginRefused():
            why, final = "login refused", True
        case amqp.NotAmqp():
            why, final = "something else than AMQP answers there", True
        case TimeoutError():
            why, final = "no answer", False
        case _ if isinstance(cause, ssl.SSLCertVerificationError):
            why, final = f"its certificate cannot be verified ({cause.verify_message})", True
        case _ if isinstance(cause, ssl.SSLError):
            why, final = "it does not speak TLS (amqps://) there", True
        case _ if isinstance(cause, ConnectionRefusedError):
            why, final = "connection refused", False
        case _:  # a name that does not resolve, a route that does not exist, cut off in between
            why, final = str(cause) or type(cause).__name__, False
    return BrokerUnreachable(without_query(url), why, final=final)


_INEQUIVALENT = re.compile(r"inequivalent arg '([^']*)' for .* received (.+) but current is (.+)")
_VALUE = re.compile(r"'([^']*)'")


def refused(part: Part, error: Exception, what: str = "cannot be declared") -> Refused:
    """The error for a declaration that the broker answered with 406: which argument differs, and how."""
    text = str(error)
    found = _INEQUIVALENT.search(text)
    if found is None:
        return Refused(f"{part.name!r} {what}: {text}")
    wanted, standing = (value[1] if (value := _VALUE.search(side)) else None for side in found.groups()[1:])
    return mismatch(part, found[1], wanted, standing)


def cluster_name(properties: Mapping[str, object]) -> str | None:
    """The name of its cluster among what a broker says of itself; None when it does not say."""
    name = properties.get("cluster_name")
    if isinstance(name, bytes):
        name = name.decode(errors="replace")
    return name if isinstance(name, str) and name else None
