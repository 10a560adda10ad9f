"""The machine against pamqp: what that writes is read the same, however it is cut; anything else ends in an error."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from flowkit.amqp import NotAmqp, ProtocolViolation
from flowkit.amqp.events import Event
from flowkit.amqp.machine import FRAME_MAX, Machine
from tests.amqp.streams import CHANNELS, expected, facts, seen_by, streams

START = marshal(commands.Connection.Start(), 0)


def machine() -> Machine:
    made = Machine()
    made.channels.update(CHANNELS)
    return made


def read(*pieces: bytes) -> list[Event]:
    reading = machine()
    return [event for piece in pieces for event in reading.receive(piece)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


def same(found: list[tuple], wanted: list[tuple]) -> None:
    consumers = {fact[1:3] for fact in wanted + found if fact[0] == "deliver"} | {(0, "")}
    for consumer in consumers:
        assert seen_by(consumer, found) == seen_by(consumer, wanted)


@given(streams(), st.lists(st.integers(min_value=0), max_size=8))
@settings(max_examples=200, deadline=None)
def test_what_pamqp_writes_is_read_the_same_however_it_is_cut(stream, places):
    data, said = stream
    same(facts(read(*cut(data, places))), expected(said))


@given(streams())
@settings(max_examples=50, deadline=None)
def test_byte_by_byte(stream):
    data, said = stream
    same(facts(read(*(bytes((byte,)) for byte in data))), expected(said))


@given(streams(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_mutated_stream_gives_events_or_one_violation_at_the_end_however_it_is_cut(stream, data):
    raw = bytearray(stream[0])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(7, len(raw) - 1))
        how = data.draw(st.sampled_from(["change", "drop", "insert"]))
        if how == "change":
            raw[at] = data.draw(st.integers(0, 255))
        elif how == "drop":
            del raw[at : at + data.draw(st.integers(1, 9))]
            raw += b"\xce" * 8  # never shorter than what is drawn next
        else:
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    whole = facts(read(bytes(raw)))
    assert all(fact[0] != "end" for fact in whole[:-1])
    same(facts(read(*cut(bytes(raw), data.draw(st.lists(st.integers(min_value=0), max_size=8))))), whole)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=10), st.booleans())
@settings(max_examples=200, deadline=None)
def test_random_bytes(pieces, after_a_start):
    reading = machine()
    events = reading.receive(START) if after_a_start else []
    for piece in pieces:
        events += reading.receive(piece)
        assert len(reading._rest) <= FRAME_MAX
    ends = [event for event in events if isinstance(event, NotAmqp | ProtocolViolation)]
    assert ends in ([], events[-1:])


def test_nothing_more_is_read_after_a_violation():
    reading = machine()
    (violation,) = reading.receive(START + b"\x01\x00\x09" + bytes(5))[1:]
    assert isinstance(violation, ProtocolViolation)
    assert reading.receive(START) == []
    assert not reading._rest


def test_a_body_in_the_smallest_pieces_takes_its_size_and_no_more():
    reading = machine()
    pieces = 100_000
    begin = [commands.Basic.Deliver("a", 1, False, "", ""), ContentHeader(0, pieces, commands.Basic.Properties())]
    reading.receive(START + b"".join(marshal(frame, 1) for frame in begin))
    one = marshal(ContentBody(b"x"), 1) + struct.pack(">BHIB", 3, 1, 0, 0xCE)  # and an empty one
    assert reading.receive(one * (pieces - 1)) == []
    assert len(reading._contents[1].body) == pieces - 1
    (event,) = reading.receive(one[:9])
    assert event.arrived[0].body == b"x" * pieces
    assert reading._contents == {}


def test_the_largest_frame_byte_by_byte():
    body = bytes(FRAME_MAX - 8)
    begin = [commands.Basic.Deliver("a", 1, False, "", ""), ContentHeader(0, len(body), commands.Basic.Properties())]
    data = START + b"".join(marshal(frame, 1) for frame in [*begin, ContentBody(body)])
    *_, event = read(*(bytes((byte,)) for byte in data))
    assert event.arrived[0].body == body


def test_names_made_up_without_end_are_forgotten():
    reading = machine()
    reading.receive(START)
    for number in range(3000):
        frames = [
            commands.Basic.Deliver(f"c{number}", 1, False, f"e{number}", ""),
            ContentHeader(0, 1),
            ContentBody(b"x"),
        ]
        frames[1].properties = commands.Basic.Properties()
        (event,) = reading.receive(b"".join(marshal(frame, 1) for frame in frames))
        assert (event.consumer_tag, event.arrived[0].exchange) == (f"c{number}", f"e{number}")
    assert len(reading._names) <= 256


def test_texts_that_are_no_utf8_are_shown_and_no_reason_to_end():
    key = b"\xff\xfe"
    method = b"\x00\x3c\x00\x3c\x01a" + struct.pack(">QB", 1, 0) + b"\x00" + bytes((len(key),)) + key
    begin = struct.pack(">BHI", 1, 1, len(method)) + method + b"\xce"
    rest = marshal(ContentHeader(0, 1, commands.Basic.Properties()), 1) + marshal(ContentBody(b"x"), 1)
    *_, event = read(START + begin + rest)
    assert event.arrived[0].key == r"\xff\xfe"


def test_tables_without_end_in_a_rare_frame_are_a_violation():
    nested = b""
    for _ in range(5000):
        nested = b"\x01a" + b"F" + struct.pack(">I", len(nested)) + nested
    payload = b"\x00\x0a\x00\x0a\x00\x09" + struct.pack(">I", len(nested)) + nested + bytes(8)
    (event,) = read(struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")
    assert isinstance(event, ProtocolViolation)
    assert event.code == 502
