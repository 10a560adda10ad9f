"""What JSON says is kept as it is, or refused with its place: never read as something else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.errors import Unreadable
from flowkit.wire import codec, exact
from flowkit.wire import messages as wire

LARGE = "an integer over 64 bits does not fit JSON here; send it as text"
LOST = [
    ('{"a": 18446744073709551616}', f"a: {LARGE}"),
    ('{"a": -9223372036854775809}', f"a: {LARGE}"),
    ('{"a":{"b":[0,{"c":123456789012345678901234567890}]}}', f"a.b[1].c: {LARGE}"),
    ('{"a": ' + "9" * 5_000 + "}", f"a: {LARGE}"),
    ('{"a": 1e400}', "a: 1e400 is more than a 64-bit float can hold; send it as text"),
    ('{"a": [1, -1E+309]}', "a[1]: -1E+309 is more than a 64-bit float can hold; send it as text"),
    ('{"a": 1, "a": 2}', "key 'a' stands there twice, and only one of its values can be kept"),
    ('{"o": {"b": 1, "c": 2, "b": 1}}', "o: key 'b' stands there twice, and only one of its values can be kept"),
    ('{"a": 1, "\\u0061": 2}', "key 'a' stands there twice, and only one of its values can be kept"),
    ('[{"a": 1}, {"": 1, "": 2}]', "[1]: key '' stands there twice, and only one of its values can be kept"),
    ('{"a": NaN}', "a: NaN is no JSON number; leave it out or send null"),
    ('{"a": [-Infinity]}', "a[0]: -Infinity is no JSON number; leave it out or send null"),
    ("18446744073709551616", LARGE),
]
KEPT = [
    '{"a": 18446744073709551615, "b": -9223372036854775808}',
    '{"id": "18446744073709551616", "text": "{\\"a\\": 1, \\"a\\": 2}"}',
    '{"a": 0.12345678901234567890123, "b": 1e308, "c": 1E-400, "d": 123456789012345678901.5}',
    '[{"a": 1}, {"a": 1}]',
    '{"a": {"a": {"a": 1}}, "": [], "\\\\": ":"}',
    '{ "a" : 1 ,\n\t"b" : [ 1 , 2 ] }',
    '{"a": -0.0, "b": 1.0, "c": "\\u00e9\\ud83d\\ude00"}',
]


@pytest.mark.parametrize(("text", "said"), LOST, ids=[text[:40] for text, _ in LOST])
def test_what_cannot_be_kept_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(Unreadable) as refused:
        codec.loads(text.encode())
    assert refused.value.detail == said
    assert refused.value.reason in ("invalid", "not-json")


@pytest.mark.parametrize("text", KEPT)
def test_what_can_be_kept_is_read_in_whatever_form_it_comes(text: str) -> None:
    assert codec.loads(text.encode()) == json.loads(text)


def test_a_place_is_named_however_deep_and_long_it_is() -> None:
    deep = "[" * 150 + '{"' + "k" * 5_000 + '": 1e999}' + "]" * 150
    with pytest.raises(Unreadable) as refused:
        codec.loads(deep.encode())
    assert refused.value.detail.startswith("[0][0]")
    assert len(refused.value.detail) < 300
    assert exact.flaw(exact.read("[" * 900 + "1e999" + "]" * 900)) is not None


def test_many_keys_of_which_one_stands_twice_are_looked_through_once() -> None:
    keys = ", ".join(f'"k{number}": 1' for number in range(100_000))
    with pytest.raises(Unreadable, match="key 'k99999' stands there twice"):
        codec.loads(f'{{{keys}, "k99999": 2}}'.encode())


def test_of_an_array_what_cannot_be_kept_does_not_concern_the_others() -> None:
    lines = '[{"ts": 1, "level": "INFO", "message": "a"}, {"ts": 1, "level": "INFO", "message": "b", "seq": 1e999}, 7]'
    good, bad = wire.decode_each(wire.Log, lines.encode())
    assert [line.message for line in good] == ["a"]
    assert [why.detail for why in bad] == [
        "seq: 1e999 is more than a 64-bit float can hold; send it as text",
        "a flowkit.log message is a JSON object, got int",
    ]


@pytest.mark.parametrize("read", [wire.decode_many, wire.decode_each])
def test_of_an_array_of_a_million_nothing_is_looked_at(read) -> None:
    with pytest.raises(Unreadable, match="too-many: an array of 1,000,001 messages; at most 10,000 may share one"):
        read(wire.Log, b"[" + b"0," * 1_000_000 + b"0]")


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    numbers | st.text(max_size=5) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(st.text('ab:\\"', max_size=2), inner), max_size=4),
    max_leaves=12,
)


def written(value: Any) -> str:
    """JSON in which lists of pairs are objects, keys twice and all."""
    if isinstance(value, list) and value and all(isinstance(one, tuple) for one in value):
        return "{" + ", ".join(f"{json.dumps(key)}: {written(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def lost(value: Any) -> bool:
    if isinstance(value, list) and value and all(isinstance(one, tuple) for one in value):
        return len({key for key, _ in value}) < len(value) or any(lost(inner) for _, inner in value)
    if isinstance(value, list):
        return any(map(lost, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


@settings(max_examples=150, deadline=None)
@given(values)
def test_either_all_is_kept_or_nothing_is_read(value: Any) -> None:
    text = written(value)
    try:
        read = codec.loads(text.encode())
    except Unreadable:
        assert lost(value)
    else:
        assert not lost(value)
        assert read == json.loads(text)
