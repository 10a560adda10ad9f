"""The properties of a message: written fast, read only as far as somebody asks.

Whoever may publish may send any bytes here. So reading takes time in proportion to their length, never recurses without
end, and what cannot be read fails him who asks, not the connection that brought it.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from struct import Struct
from typing import Any

from pamqp.encode import encode_table_value

from flowkit.amqp.errors import MalformedProperties

# In the order of the wire: the highest bit of the flags is the first one's.
NAMES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to",
    "expiration", "message_id", "timestamp", "message_type", "user_id", "app_id", "cluster_id",
)  # fmt: skip
BITS = {name: 1 << (15 - position) for position, name in enumerate(NAMES)}
DEPTH = 64  # of tables and lists in one another
_LENGTH = [bytes((length,)) for length in range(256)]
_U16, _U32, _U64, _DOUBLE = Struct(">H"), Struct(">I"), Struct(">Q"), Struct(">d")


class Properties:
    """The properties of one message; what it does not have is None. ``headers`` are decoded when they are asked for."""

    content_type: str | None = None
    content_encoding: str | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: dt.datetime | int | None = None
    message_type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None
    _table = b""
    _headers: dict[str, Any] | None = None

    def __init__(self, raw: bytes) -> None:
        try:
            end = self._read(raw)
        except (IndexError, struct.error):
            end = -1
        if end != len(raw):
            raise MalformedProperties(f"the properties of a message end where they should not: {raw[:64]!r}")

    @property
    def headers(self) -> dict[str, Any]:
        """The headers; the same dictionary each time.

        Raises:
            MalformedProperties
        """
        if self._headers is None:
            self._headers = decode_table(self._table) if self._table else {}
        return self._headers

    def _read(self, raw: bytes) -> int:
        """Fill in what is there; return where it ends."""
        found, at = self.__dict__, 2
        for name, kind in _present(raw[0] << 8 | raw[1]):
            if kind == _SHORT:
                start = at + 1
                at = start + raw[at]
                found[name] = str(raw[start:at], "utf-8", "backslashreplace")
            elif kind == _OCTET:
                found[name] = raw[at]
                at += 1
            elif kind == _HEADERS:
                start = at + 4
                at = start + _U32.unpack_from(raw, at)[0]
                found["_table"] = raw[start:at]
            else:
                found[name] = _moment(_U64.unpack_from(raw, at)[0])
                at += 8
        return at


_SHORT, _OCTET, _HEADERS, _TIMESTAMP = range(4)
_KINDS = {"delivery_mode": _OCTET, "priority": _OCTET, "headers": _HEADERS, "timestamp": _TIMESTAMP}


@lru_cache(maxsize=256)
def _present(flags: int) -> tuple[tuple[str, int], ...]:
    """What a message has, in order, and how it is written."""
    if flags & 3:
        raise MalformedProperties(f"unknown properties in the flags {flags:#06x}")
    return tuple((name, _KINDS.get(name, _SHORT)) for name in NAMES if flags & BITS[name])


def encode_properties(
    *,
    content_type: str | None = None,
    headers: Mapping[str, Any] | None = None,
    delivery_mode: int | None = None,
    correlation_id: str | None = None,
    message_id: str | None = None,
    message_type: str | None = None,
    user_id: str | None = None,
    app_id: str | None = None,
) -> bytes:
    """Write properties; the caller's, which change from message to message, and those that stay are told apart.

    Raises:
        ValueError: a text over 255 bytes, or a header that AMQP cannot carry.
    """
    flags, last = _ending(message_type, user_id, app_id)
    parts = []
    if content_type is not None:
        flags |= 0x8000
        parts.append(_short(content_type))
    if headers:
        flags |= 0x2000
        parts.append(encode_table(headers))
    if delivery_mode is not None:
        flags |= 0x1000
        parts.append(_LENGTH[delivery_mode])
    if correlation_id is not None:
        flags |= 0x0400
        parts.append(_short(correlation_id))
    if message_id is not None:
        flags |= 0x0080
        parts.append(_short(message_id))
    return b"".join((_U16.pack(flags), *parts, last))


@lru_cache(maxsize=256)
def _ending(message_type: str | None, user_id: str | None, app_id: str | None) -> tuple[int, bytes]:
    """What stays the same from message to message, with its flags."""
    given = {"message_type": message_type, "user_id": user_id, "app_id": app_id}
    present = {name: value for name, value in given.items() if value is not None}
    return sum(BITS[name] for name in present), b"".join(map(_short, present.values()))


def _short(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        raise ValueError(f"{text[:40]!r}… has {len(raw)} bytes, and AMQP carries 255 here")
    return _LENGTH[len(raw)] + raw


def encode_table(table: Mapping[str, Any]) -> bytes:
    """Write headers, with their length before them.

    Raises:
        ValueError: a value that AMQP cannot carry.
    """
    parts = []
    for name, value in table.items():
        parts.append(_short(name))
        if type(value) is str:
            raw = value.encode()
            parts.append(b"S" + _U32.pack(len(raw)) + raw)
        elif type(value) is float:
            parts.append(b"d" + _DOUBLE.pack(value))  # pamqp would make it a single
        else:
            try:
                parts.append(encode_table_value(value))
            except (TypeError, OverflowError) as error:
                raise ValueError(f"header {name!r}: {error}") from None
    raw = b"".join(parts)
    return _U32.pack(len(raw)) + raw


def decode_table(raw: bytes) -> dict[str, Any]:
    """Read headers, without the length before them.

    Raises:
        MalformedProperties
    """
    try:
        return _table(raw, 0, len(raw), DEPTH)
    except (IndexError, struct.error):
        raise MalformedProperties("headers end in the middle of a value") from None


def _table(raw: bytes, at: int, end: int, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + raw[at]
        name = str(raw[start:at], "utf-8", "backslashreplace")
        found[name], at = _value(raw, at, end, depth)
    return found


def _list(raw: bytes, at: int, end: int, depth: int) -> list[Any]:
    found = []
    while at < end:
        value, at = _value(raw, at, end, depth)
        found.append(value)
    return found


# As RabbitMQ reads them: https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3
_NUMBERS = {
    ord(kind): Struct(f">{code}")
    for kind, code in {"b": "b", "B": "B", "s": "h", "u": "H", "I": "i", "i": "I", "l": "q", "L": "q",
                       "f": "f", "d": "d", "t": "?", "T": "Q", "D": "Bi"}.items()
}  # fmt: skip
_T, _D, _S, _X, _A, _F, _V = (ord(kind) for kind in "TDSxAFV")


def _value(raw: bytes, at: int, end: int, depth: int) -> tuple[Any, int]:
    """One value with its type before it, and where it ends."""
    kind, at = raw[at], at + 1
    value: Any
    if kind in _NUMBERS:
        layout = _NUMBERS[kind]
        value, *rest = layout.unpack_from(raw, at)
        at += layout.size
        if kind == _T:
            value = _moment(value)
        elif kind == _D:
            value = Decimal(rest[0]).scaleb(-value)
    elif kind in (_S, _X, _A, _F):
        start = at + 4
        at = start + _U32.unpack_from(raw, at)[0]
        if kind == _S:
            value = _text(raw[start:at])
        elif kind == _X:
            value = raw[start:at]
        elif not depth:
            raise MalformedProperties(f"headers are nested over {DEPTH} deep")
        else:
            value = (_list if kind == _A else _table)(raw, start, at, depth - 1)
    elif kind in (_V, 0):
        value = None
    else:
        raise MalformedProperties(f"unknown type {chr(kind)!r} of a value in the headers")
    if at > end:
        raise MalformedProperties("a value in the headers is longer than what holds it")
    return value, at


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _moment(number: int) -> dt.datetime | int:
    """A timestamp; in seconds, but some clients send milliseconds. One out of any calendar stays a number."""
    try:
        return dt.datetime.fromtimestamp(number if number <= 0xFFFFFFFF else number / 1000, tz=dt.UTC)
    except (ValueError, OverflowError, OSError):
        return number
