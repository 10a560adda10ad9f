"""Hostile messages: what a broken client, or somebody with a stolen login, could put into any queue."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chaos.raw import nested, short, table, text
from tests.wire.odd import astral, letters

GOLDEN = Path(__file__).parents[1] / "wire" / "golden"
MiB = 1024 * 1024
KIND = {  # the exchange of each kind of golden file
    "start": "starts", "command": "commands", "result": "results", "task": "tasks", "worker": "workers",
    "control": "control", "log": "logs", "run": "runs",
}  # fmt: skip
EXCHANGES = ("starts", "commands", "results", "tasks", "workers", "control", "logs", "dead")

BODIES: dict[str, bytes] = {
    "empty": b"",
    "a zero byte": b"\0",
    "no UTF-8": b'{"node": "\xff\xfe"}',
    "UTF-16": '{"node": "add"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"node": "add"}',
    "null": b"null",
    "a number": b"17",
    "text": b'"add"',
    "an empty array": b"[]",
    "an array of nothing": b"[null, 1, [], {}]",
    "half": b'{"node": "add", "inputs": {',
    "NaN": b'{"node": "add", "inputs": {"a": NaN}}',
    "infinity": b'{"node": "add", "inputs": {"a": -Infinity}}',
    "too large a float": b'{"node": "add", "inputs": {"a": 1e999}}',
    "a huge integer": b'{"node": "add", "inputs": {"a": ' + b"9" * 5_000 + b"}}",
    "2 to the 64th": b'{"node": "add", "inputs": {"a": 18446744073709551616}}',
    "a lone surrogate": rb'{"node": "add", "inputs": {"a": "\ud800"}}',
    "a zero in text": rb'{"node": "add", "inputs": {"a": "\u0000", "b": 1}}',
    "keys twice deep inside": b'{"node": "add", "inputs": {"a": 1, "b": 2, "c": [{"d": 1, "d": 2}]}}',
    "keys twice": b'{"node": "add", "node": "nobody", "inputs": {"a": 1}, "inputs": []}',
    "201 levels": b'{"node": "add", "inputs": ' + b'{"a":' * 201 + b"1" + b"}" * 202,
    "100,000 levels": b"[" * 100_000 + b"]" * 100_000,
    "100,000 keys": json.dumps({f"k{n}": n for n in range(100_000)}).encode(),
    "10,000 nulls": b"[" + b",".join([b"null"] * 10_000) + b"]",
    "another version": b'{"v": 2, "node": "add"}',
    "a version that is text": b'{"v": "1", "node": "add"}',
    "a version that is none": b'{"v": null, "node": "add"}',
    "a path": b'{"node": "../../etc/passwd", "inputs": {}}',
    "a long name": b'{"node": "' + b"a" * 10_000 + b'", "inputs": {}}',
    "a script": b'{"node": "<script>alert(1)</script>", "run_id": "\\u001b[2J"}',
}
LARGE: dict[str, bytes] = {
    "16 MiB of spaces": b" " * 16 * MiB,
    "over 16 MiB of JSON": b'{"node": "add", "inputs": {"a": "' + b"x" * 16 * MiB + b'"}}',
}
DEATH = short(b"x-death") + b"A" + table(b"F" + table(text(b"queue", b"elsewhere") + text(b"reason", b"rejected")))
HEADERS: dict[str, bytes] = {
    "nested 50 deep": nested(50),
    "nested 300 deep": nested(300),
    "64 kB": table(text(b"h", b"x" * 65_000)),
    "a thousand": table(b"".join(text(b"h%d" % n, b"x") for n in range(1_000))),
    "a forged x-death": table(DEATH),
    "an x-death that is text": table(text(b"x-death", b"often")),
    "a forged reason": table(text(b"flowkit-reason", b"\x1b[2Jmine") + text(b"flowkit-detail", b"d" * 40_000)),
    "a delivery count that is text": table(text(b"x-delivery-count", b"often")),
    "a negative delivery count": table(short(b"x-delivery-count") + b"l" + struct.pack(">q", -5)),
    "an offset": table(short(b"x-stream-offset") + b"l" + struct.pack(">q", 2**62)),
    "a broken traceparent": table(text(b"traceparent", b"00-zz")),
    "void, decimal, bytes, boolean": table(
        short(b"v") + b"V" + short(b"d") + b"D\x02" + struct.pack(">i", -1) + short(b"x") + b"x\0\0\0\1\xff"
        + short(b"t") + b"t\1"
    ),
}  # fmt: skip
STRINGS: dict[str, bytes] = {
    "html": b"text/html",
    "empty": b"",
    "control characters": b"\x1b[2J\0\r\n",
    "long": b"x" * 255,
}
POISON: dict[str, dict[str, bytes]] = {  # would kill the connection of whoever reads it with aiormq
    "a name that is no UTF-8": {"headers": table(text(b"\xff\xfe", b"x"))},
    "a timestamp of the year 500 billion": {"timestamp": struct.pack(">Q", 2**64 - 1)},
    "a correlation id that is no UTF-8": {"correlation_id": short(b"\xff\xfe")},
    "a message id that is no UTF-8": {"message_id": short(b"\xff\xfe")},
    "a type that is no UTF-8": {"type": short(b"\xff\xfe")},
    "headers nested 2,000 deep": {"headers": nested(2_000)},
}
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 2**64 - 1, 1e308, "", "\0", "x" * 1_000, "../x", [], [[]], {}, {"a": {"b": []}},
    [None], "2026-13-45T99:99:99Z", "\u202e\ud7ff", letters(9_000), astral(3_000), {letters(9_000): "v"},
)  # fmt: skip

Hostile = tuple[str, dict[str, bytes], bytes]  # what it is, properties, body
DURABLE = {"delivery_mode": b"\2"}


def properties() -> Iterator[Hostile]:
    """Odd properties around a body that could be fine."""
    body = b'{"node": "add", "inputs": {"a": 1}}'
    for name, headers in HEADERS.items():
        yield f"headers: {name}", DURABLE | {"headers": headers}, body
    for where in ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id"):
        for name, value in STRINGS.items():
            yield f"{where}: {name}", DURABLE | {where: short(value)}, body
    yield "priority 255", DURABLE | {"priority": b"\xff"}, body
    yield "a foreign user_id", DURABLE | {"user_id": short(b"root")}, body
    yield "an expiration that is no number", DURABLE | {"expiration": short(b"soon")}, body
    yield "not durable", {"delivery_mode": b"\1"}, body


def bodies() -> Iterator[Hostile]:
    """Odd bodies."""
    for name, body in BODIES.items():
        yield name, DURABLE, body


def mutants(exchange: str) -> Iterator[Hostile]:
    """The messages of the contract, each field of them in turn replaced by what should not be there."""
    for file in sorted(GOLDEN.glob("*.json")):
        if KIND[file.stem.partition("-")[0]] != exchange:
            continue
        message = json.loads(file.read_text())
        for field in message:
            for value in VALUES:
                yield f"{file.stem}.{field} = {value!r:.40}", DURABLE, json.dumps(message | {field: value}).encode()
            without = {name: value for name, value in message.items() if name != field}
            yield f"{file.stem} without {field}", DURABLE, json.dumps(without).encode()


def all_for(exchange: str) -> Iterator[Hostile]:
    """Everything but what kills the connections of others and what is large."""
    yield from bodies()
    yield from properties()
    yield from mutants(exchange)
