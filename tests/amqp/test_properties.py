"""Properties against pamqp, and against bytes that are none."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, decode
from pamqp.header import ContentHeader

from flowkit.amqp import MalformedProperties, Properties, encode_properties
from flowkit.amqp.properties import NAMES, decode_table, encode_table
from tests.amqp.streams import properties, tables, texts


@given(properties)
@settings(max_examples=150, deadline=None)
def test_what_pamqp_writes_is_read_the_same(written):
    found = Properties(written.marshal())
    for name in NAMES:
        value = getattr(written, name)
        if name == "headers":
            assert found.headers == (value or {})
            assert found.headers is found.headers
        else:
            assert getattr(found, name) == (value if value != "" else None)  # pamqp writes no empty text


def optional(what: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | what


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": optional(texts()),
            "headers": optional(tables),
            "delivery_mode": st.sampled_from([None, 1, 2]),
            "correlation_id": optional(texts()),
            "message_id": optional(texts()),
            "message_type": optional(texts()),
            "user_id": optional(texts()),
            "app_id": optional(texts()),
        },
    )
)
@settings(max_examples=150, deadline=None)
def test_pamqp_reads_what_we_write(given_ones):
    raw = encode_properties(**given_ones)
    theirs = ContentHeader()
    theirs.unmarshal(struct.pack(">HHQ", 60, 0, 0) + raw)
    ours = Properties(raw)
    for name in NAMES:
        value = given_ones.get(name)
        if name == "headers":
            assert (theirs.properties.headers or {}) == ours.headers == (value or {})
        else:
            assert (getattr(theirs.properties, name) or None) == (value or None)
            assert getattr(ours, name) == value


@given(tables)
@settings(max_examples=200, deadline=None)
def test_tables_are_read_by_both_the_same(table):
    raw = encode_table(table)
    assert decode.field_table(raw)[1] == decode_table(raw[4:]) == table


@given(properties, st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_broken_raises_one_error_or_is_read(written, data):
    raw = bytearray(written.marshal())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(MalformedProperties):
        assert isinstance(Properties(bytes(raw)).headers, dict)


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_random_bytes(raw):
    for act in (Properties, decode_table):
        with suppress(MalformedProperties):
            act(raw)


def nested(kind: bytes, depth: int) -> bytes:
    raw = b""
    for _ in range(depth):
        raw = (b"\x01a" if kind == b"F" else b"") + kind + struct.pack(">I", len(raw)) + raw
    return raw if kind == b"F" else b"\x01a" + raw


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_headers_are_nested_so_deep_and_no_deeper(kind):
    assert decode_table(nested(kind, 60))
    with pytest.raises(MalformedProperties, match="nested"):
        decode_table(nested(kind, 5000))


def test_headers_full_of_nothing_take_no_more_time_than_their_length():
    count = 120_000
    raw = b"\x01aA" + struct.pack(">I", count) + b"V" * count
    assert decode_table(raw) == {"a": [None] * count}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "end where they should not"),
        (b"\x80", "end where they should not"),
        (b"\x80\x00\x05abc", "end where they should not"),
        (b"\x00\x00more", "end where they should not"),
        (b"\x00\x01\x80\x00", "unknown properties"),
        (b"\x20\x00\xff\xff\xff\xff", "end where they should not"),
    ],
)
def test_properties_that_end_too_early_or_too_late(raw, why):
    with pytest.raises(MalformedProperties, match=why):
        Properties(raw)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (b"\x01aZ", "unknown type 'Z'"),
        (b"\x01a", "middle of a value"),
        (b"\x01aS\x00\x00\x00\x05abc", "longer than what holds it"),
        (b"\x01aF\x00\x00\x00\x07\x01bl\x00\x00\x00\x00\x00\x00\x00\x00", "longer than what holds it"),
    ],
)
def test_headers_that_are_broken_do_not_spoil_the_rest(table, why):
    found = Properties(b"\x20\x80" + struct.pack(">I", len(table)) + table + b"\x02id")
    assert found.message_id == "id"
    for _ in range(2):
        with pytest.raises(MalformedProperties, match=why):
            _ = found.headers


def test_odd_values_are_kept():
    assert Properties(b"\x40\x00\x02\xff\xfe").content_encoding == r"\xff\xfe"
    assert Properties(b"\x00\x40" + b"\xff" * 8).timestamp == (1 << 64) - 1
    assert decode_table(b"\x01aS\x00\x00\x00\x01\xff") == {"a": b"\xff"}
    assert Properties(commands.Basic.Properties(cluster_id="").marshal()).cluster_id is None


@pytest.mark.parametrize(
    "given_ones",
    [
        {"message_id": "x" * 256},
        {"app_id": "ü" * 128},
        {"headers": {"x" * 256: 1}},
        {"headers": {"a": 1 << 63}},
        {"headers": {"a": object()}},
        {"headers": {"a": {"b": object()}}},
        {"correlation_id": "\ud800"},
    ],
)
def test_what_amqp_cannot_carry_is_a_value_error(given_ones):
    with pytest.raises(ValueError, match=r".+"):
        encode_properties(**given_ones)
