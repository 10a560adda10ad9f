"""JSON with the limits that orjson leaves to its caller."""

from __future__ import annotations

import math
import tracemalloc
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.errors import InvalidPayload, Unreadable
from flowkit.flow.values import continuation
from flowkit.wire import codec


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"image": {"size": float("nan")}}, "outputs.image.size"),
        ({"x": [1, math.inf]}, r"outputs.x\[1\]"),
        ({"when": date(2026, 1, 31)}, "outputs.when: date"),
        ({"n": 2**64}, "outputs.n: an integer over 64 bits"),
        ({"n": -(2**63) - 1}, "outputs.n: an integer over 64 bits"),
        ({"b": b"bytes"}, "outputs.b: bytes"),
        ({"s": {1, 2}}, "outputs.s: set"),
        ({1: "x"}, "key 1 is int"),
        ({"t": "\ud800"}, "lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
        ({"a": {"b": [0, {"c": {"t": "\ud800"}}]}}, r"outputs.a.b\[1\].c.t: text"),
        ({"deep": nested(190)}, "nested deeper than 190"),
    ],
)
def test_what_json_cannot_carry_is_named_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidPayload, match=path):
        codec.encode_object(value, "outputs")


@pytest.mark.parametrize("value", [[], "text", None, 3, [("a", 1)]])
def test_a_payload_is_an_object(value: Any) -> None:
    with pytest.raises(InvalidPayload, match="outputs: must be a dict, got"):
        codec.encode_object(value, "outputs")


@pytest.mark.parametrize("value", [{}, {"t": "\u0000 ☕"}, {"n": 2**64 - 1}, {"n": -(2**63)}, {"deep": nested(189)}])
def test_what_fits_comes_back_the_same(value: Any) -> None:
    assert codec.loads(codec.encode_object(value, "outputs")) == value


@pytest.mark.parametrize("body", [b"", b"{", b"\xff{}", b"NaN", b"{'a': 1}", b"{} {}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable) as refused:
        codec.loads(body)
    assert refused.value.reason == "not-json"


@pytest.mark.parametrize("leaf", [b"", b"1"])
@pytest.mark.parametrize("depth", [201, 1_000])
def test_what_is_nested_too_deep_is_refused(depth: int, leaf: bytes) -> None:
    codec.loads(b"[" * 200 + leaf + b"]" * 200)
    with pytest.raises(Unreadable) as refused:
        codec.loads(b"[" * depth + leaf + b"]" * depth)
    assert refused.value.reason == "too-deep"


def test_the_deepest_payload_travels_in_every_message() -> None:
    payload = {"deep": nested(codec.MAX_PAYLOAD_DEPTH - 1)}
    codec.check(payload, "outputs")
    inputs = continuation(b"{}", None, [codec.dumps({"results": [codec.embed(codec.dumps(payload))]})])
    gather = {"gather": {"sends": [{"node": "a", "inputs": payload}], "then": "b"}}
    for body in ({"inputs": codec.embed(inputs)}, [{"nodes": [gather], "outputs": payload}]):
        codec.loads(codec.dumps(body))


def test_many_brackets_side_by_side_are_not_deep() -> None:
    wide = {"rows": [[] for _ in range(1_000)]}
    assert codec.loads(codec.dumps(wide)) == wide


def test_a_small_value_that_is_kept_keeps_no_page() -> None:
    tracemalloc.start()
    try:
        kept = [codec.dumps({"number": number, "text": "x" * 180}) for number in range(100)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(kept) < 500


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.dictionaries(st.text(), values))
def test_every_payload_that_is_accepted_comes_back_the_same(value: dict[str, Any]) -> None:
    assert codec.loads(codec.encode_object(value, "inputs")) == value
