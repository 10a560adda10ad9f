"""What is written by hand, read by pamqp."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.frame import unmarshal

from flowkit.amqp.frames import TEMPLATES, PublishFrames, acks, nacks
from tests.amqp.streams import names, properties, texts


def frames(raw: bytes) -> list:
    found = []
    while raw:
        used, number, frame = unmarshal(raw)
        assert number == 7
        found.append(frame)
        raw = raw[used:]
    return found


@given(names, texts(), st.booleans(), properties, st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_a_message_is_read_as_it_was_meant(exchange, key, mandatory, described, body):
    parts: list[bytes] = []
    frame_max = max(108, len(described.marshal()) + 20)
    size = PublishFrames(7, frame_max).add(parts, (exchange, key, mandatory, None, described.marshal(), body))
    publish, header, *pieces = frames(b"".join(parts))
    assert size == len(body) == header.body_size
    assert (publish.exchange, publish.routing_key, publish.mandatory) == (exchange, key, mandatory)
    assert header.properties.marshal() == described.marshal()
    assert b"".join(piece.value for piece in pieces) == body
    assert all(0 < len(piece.value) <= frame_max - 8 for piece in pieces)


@given(st.none() | st.integers(1, (1 << 63) - 1), st.lists(st.integers(1, (1 << 63) - 1), max_size=5), st.booleans())
def test_answers_to_deliveries(up_to, tags, requeue):
    said = [(frame.delivery_tag, frame.multiple) for frame in frames(acks(7, up_to=up_to, singles=tags))]
    assert said == [(up_to, True)] * (up_to is not None) + [(tag, False) for tag in tags]
    refused = frames(nacks(7, tags, requeue=requeue))
    assert [(frame.delivery_tag, frame.multiple, frame.requeue) for frame in refused] == [
        (tag, False, requeue) for tag in tags
    ]
    assert all(isinstance(frame, commands.Basic.Nack) for frame in refused)


def test_properties_that_fill_more_than_a_frame():
    writing, parts = PublishFrames(7, 4096), []
    assert writing.add(parts, ("", "k", False, None, bytes(4076), b"")) == 0
    assert len(parts) == 4
    with pytest.raises(ValueError, match="4077 bytes do not fit into a frame of 4088"):
        writing.add(parts, ("", "k", False, None, bytes(4077), b""))
    assert len(parts) == 4


def test_templates_are_bounded():
    writing, parts = PublishFrames(7, 4096), []
    for number in range(3 * TEMPLATES):
        writing.add(parts, ("", f"k{number}", False, None, b"\x00\x00", b""))
    assert len(writing._methods) <= TEMPLATES
