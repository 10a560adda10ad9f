"""What brokers may send, made by hypothesis, written by pamqp."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from flowkit.amqp.events import Confirms, Deliveries, Event, Method, SentBack

CHANNELS = (1, 2, 3)


def texts(most: int = 40) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), max_size=most)


names = st.text(st.sampled_from("abcxyz-_.:0"), max_size=20)  # pamqp lets no other exchange be written
tags = st.integers(1, (1 << 63) - 1)
moments = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(width=32, allow_nan=False)
    | texts()
    | moments
    | st.decimals(-2_000_000, 2_000_000, places=3)
    | st.binary(max_size=20).map(bytearray),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(20), inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(texts(20), values, max_size=6)
properties = st.builds(
    commands.Basic.Properties,
    content_type=st.none() | texts(),
    content_encoding=st.none() | texts(),
    headers=st.none() | tables,
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | texts(),
    reply_to=st.none() | texts(),
    expiration=st.none() | texts(),
    message_id=st.none() | texts(),
    timestamp=st.none() | moments,
    message_type=st.none() | texts(),
    user_id=st.none() | texts(),
    app_id=st.none() | texts(),
)


@dataclass(frozen=True)
class Content:
    """A message with its frames: how its body is cut is part of it."""

    method: commands.Basic.Deliver | commands.Basic.Return
    properties: commands.Basic.Properties
    pieces: tuple[bytes, ...]

    @property
    def frames(self) -> list[Any]:
        body = sum(len(piece) for piece in self.pieces)
        return [self.method, ContentHeader(0, body, self.properties), *(ContentBody(piece) for piece in self.pieces)]


# To the machine properties are bytes; what is in them is another test's. Drawing few things draws many streams.
DESCRIBED = [
    commands.Basic.Properties(),
    commands.Basic.Properties(message_id="m", delivery_mode=2),
    commands.Basic.Properties(headers={"a": [1, {"b": "c"}]}, app_id="\xce" * 40),
]
few = st.sampled_from(["", "k", "some.key", "ü" * 100])
exchanges = st.sampled_from(["", "x", "amq.topic"])
deliveries = st.builds(
    commands.Basic.Deliver,
    consumer_tag=st.sampled_from(["a", "b", "ü"]),
    delivery_tag=tags,
    redelivered=st.booleans(),
    exchange=exchanges,
    routing_key=few,
)
returns = st.builds(
    commands.Basic.Return, reply_code=st.integers(0, 65535), reply_text=few, exchange=exchanges, routing_key=few
)
contents = st.builds(
    Content,
    method=deliveries | returns,
    properties=st.sampled_from(DESCRIBED),
    pieces=st.lists(st.binary(min_size=1, max_size=60), max_size=3).map(tuple),
)
plain = contents.map(lambda content: Content(content.method, content.properties, (b"".join(content.pieces) or b"x",)))
confirms = st.builds(commands.Basic.Ack, tags, st.booleans()) | st.builds(
    commands.Basic.Nack, tags, st.booleans(), st.booleans()
)
rare = st.sampled_from(
    [
        commands.Queue.DeclareOk("q", 3, 1 << 31),
        commands.Basic.ConsumeOk("ü"),
        commands.Basic.Cancel("c", True),
        commands.Channel.Flow(False),
        commands.Channel.Close(404, "NOT_FOUND", 50, 10),
        commands.Connection.Start(server_properties={"a": {"b": 1}}),
    ]
)
items = st.tuples(st.sampled_from(CHANNELS), contents | plain | plain | confirms | rare)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, Any]]]:
    """Bytes, and what they say in the order in which it is complete: contents of several channels interleave."""
    lanes: dict[int, list[Any]] = {number: [] for number in CHANNELS}
    for number, item in draw(st.lists(items, max_size=12)):
        lanes[number].append(item)
    raw, said = bytearray(marshal(commands.Connection.Start(), 0)), list[tuple[int, Any]]()
    waiting = {number: [pair for item in lane for pair in _frames(item)] for number, lane in lanes.items()}
    while any(waiting.values()):
        number = draw(st.sampled_from([number for number, frames in waiting.items() if frames]))
        frame, item = waiting[number].pop(0)
        raw += marshal(frame, number)
        if item is not None:
            said.append((number, item))
        if draw(st.integers(0, 9)) == 0:
            raw += marshal(Heartbeat(), 0)
    return bytes(raw), said


def _frames(item: Any) -> list[tuple[Any, Any]]:
    """Its frames, each with what is complete by it."""
    frames = item.frames if isinstance(item, Content) else [item]
    return [(frame, item if frame is frames[-1] else None) for frame in frames]


def facts(events: list[Event]) -> list[tuple[Any, ...]]:
    """Events as plain tuples, one for each message and confirm."""
    found: list[tuple[Any, ...]] = []
    for event in events:
        match event:
            case Deliveries(channel, consumer_tag, arrived):
                assert {one.consumer_tag for one in arrived} == {consumer_tag}
                found += [
                    (
                        "deliver",
                        channel,
                        consumer_tag,
                        one.tag,
                        one.redelivered,
                        one.exchange,
                        one.key,
                        one.raw,
                        one.body,
                    )
                    for one in arrived
                ]
            case Confirms(channel, said):
                found += [("confirm", channel, *one) for one in said]
            case SentBack():
                found.append(("return", event.channel, event.code, event.text, event.exchange, event.key, event.raw))
            case Method(channel, frame):
                found.append(("method", channel, frame.name, dict(frame)))
            case _:
                found.append(("end", type(event), str(event)))
    return found


def expected(said: list[tuple[int, Any]]) -> list[tuple[Any, ...]]:
    """The same of what was written."""
    found: list[tuple[Any, ...]] = [("method", 0, "Connection.Start", dict(commands.Connection.Start()))]
    for number, item in said:
        match item:
            case Content(commands.Basic.Deliver() as method):
                found.append(
                    ("deliver", number, method.consumer_tag, method.delivery_tag, method.redelivered, method.exchange,
                     method.routing_key, item.properties.marshal(), b"".join(item.pieces))
                )  # fmt: skip
            case Content(method):
                found.append(
                    ("return", number, method.reply_code, method.reply_text, method.exchange, method.routing_key,
                     item.properties.marshal())
                )  # fmt: skip
            case commands.Basic.Ack() | commands.Basic.Nack():
                found.append(
                    ("confirm", number, item.delivery_tag, item.multiple, isinstance(item, commands.Basic.Ack))
                )
            case _:
                found.append(("method", number, item.name, dict(item)))
    return found


def seen_by(consumer: tuple[int, str], all_facts: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What one consumer can tell of the order: its deliveries, and everything that is no delivery."""
    return [fact for fact in all_facts if fact[0] != "deliver" or fact[1:3] == consumer]
