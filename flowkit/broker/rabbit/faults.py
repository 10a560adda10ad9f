"""What can go wrong between here and RabbitMQ, sorted: lost, refused, or our own mistake."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiormq
from aiormq.exceptions import ChannelClosed

from flowkit.broker.refusal import mismatch
from flowkit.errors import BrokerUnreachable, FlowKitError, Refused
from flowkit.wire.topology import Part

ANSWER = 15.0  # seconds for the broker to answer one question


class LinkLost(Exception):
    """The connection or the channel is gone; what was under way may or may not have happened."""


class LinkClosed(FlowKitError):
    """The broker object was closed by its owner."""


@contextmanager
def guard() -> Iterator[None]:
    """Turn what the library raises when a connection dies into ``LinkLost``; answers of the broker pass as they are.

    A dying connection fails its callers with whatever killed it: an error of decoding, a bare ``Exception``, even a
    ``CancelledError`` that nobody sent, which is told from a real one by the count of cancel requests.
    """
    try:
        yield
    except (ChannelClosed, aiormq.DeliveryError, LinkLost, FlowKitError):
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise LinkLost("the connection died") from error
    except Exception as error:
        raise LinkLost(str(error) or type(error).__name__) from error


@asynccontextmanager
async def answered(what: str) -> AsyncIterator[None]:
    """Bound one question to the broker: an answer that never comes is a lost connection to whoever asked.

    Seen once on 3.10.8, when a queue was deleted under its consumer: the broker lived, and never answered.
    """
    try:
        async with asyncio.timeout(ANSWER):
            yield
    except TimeoutError:
        raise LinkLost(f"no answer to {what} in {ANSWER:g} s") from None


def poisonous(error: BaseException | None) -> bool:
    """Whether a connection died of a frame that cannot be decoded, and not of anything between here and the broker."""
    if isinstance(error, aiormq.InvalidFrameError):
        return True
    return error is not None and not isinstance(error, aiormq.AMQPError | OSError | EOFError | asyncio.CancelledError)


def unreachable(url: str, error: BaseException, heard: bytes) -> BrokerUnreachable:
    """Why a connection could not be made, in a few words, and whether it can help to try again.

    Args:
        url: the address, masked.
        error: what connecting raised.
        heard: the last bytes that came from there.
    """
    why, final = _why(error, heard)
    return BrokerUnreachable(url, why, final=final)


def _why(error: BaseException, heard: bytes) -> tuple[str, bool]:
    cause = error.__cause__ or error
    # The library throws away what the broker answers when a virtual host is not to be had.
    not_allowed = re.search(rb"NOT_ALLOWED - ([ -~]+)", heard)
    match error:
        case _ if not_allowed:
            words = not_allowed[1].decode("ascii")
            answer = words, "not found" in words or "refused for user" in words
        case aiormq.ProbableAuthenticationError() | aiormq.AuthenticationError():
            answer = "login refused", True
        case TimeoutError():
            answer = "no answer", False
        case _ if isinstance(cause, ssl.SSLCertVerificationError):
            answer = f"its certificate cannot be verified ({cause.verify_message})", True
        case _ if isinstance(cause, ssl.SSLError):
            answer = "it does not speak TLS (amqps://) there", True
        case _ if isinstance(cause, ConnectionRefusedError):
            answer = "connection refused", False
        case OSError() | EOFError():  # a name that does not resolve, a route that does not exist, cut off in between
            answer = str(cause) or type(cause).__name__, False
        case _:
            answer = "something else than AMQP answers there", True
    return answer


_INEQUIVALENT = re.compile(r"inequivalent arg '([^']*)' for .* received (.+) but current is (.+)")
_VALUE = re.compile(r"'([^']*)'")


def refused(part: Part, error: aiormq.ChannelPreconditionFailed) -> Refused:
    """The error for a declaration that the broker answered with 406: which argument differs, and how."""
    text = str(error)
    found = _INEQUIVALENT.search(text)
    if found is None:
        return Refused(f"{part.name!r} cannot be declared: {text}")
    wanted, standing = (value[1] if (value := _VALUE.search(side)) else None for side in found.groups()[1:])
    return mismatch(part, found[1], wanted, standing)
