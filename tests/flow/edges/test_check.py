"""Which edges are found, and what is said of each."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator

from flowkit.flow import making
from flowkit.flow.edges.check import FAILURE, check, not_declared, reached
from flowkit.wire import codec
from flowkit.wire import messages as wire
from tests.flow.edges.test_fits import INTEGER, NUMBER, TEXT, array, obj


def node(name: str, *plain: str, outputs: Any = None, inputs: Any = None, **words: Any) -> wire.NodeInfo:
    schemas = {key: schema for key, schema in (("inputs", inputs), ("outputs", outputs)) if schema is not None}
    return wire.NodeInfo(name=name, schemas=schemas or None, plain=plain, **{"next": plain or None} | words)


def found(*nodes: wire.NodeInfo, **words: Any) -> list[tuple[str, str, str, str, str]]:
    checked = check({one.name: one for one in nodes}, **words)
    return [(one.edge.source, one.edge.target, one.edge.kind, one.verdict, one.text) for one in checked]


OUT = obj("path", closed=True, path=TEXT)
CASES = [
    ("it fits", OUT, obj("path", path=TEXT), "fits", ""),
    ("no outputs declared", None, obj("path", path=TEXT), "unknown", ""),
    ("no inputs declared", OUT, None, "unknown", ""),
    ("another type", OUT, obj("path", path=array(TEXT)), "cannot", "path: a sends string, b takes array"),
    ("required", OUT, obj("size", size=INTEGER), "cannot", "size: b requires it (integer), a never sends it"),
    ("not taken", OUT, obj(closed=True), "cannot", "path: a sends it always, b does not take it"),
    ("converted", OUT, obj("path", path=INTEGER), "doubtful",
     "path: a sends string, b takes integer (fits only if it is left out, empty, or converted)"),
    ("not taken, perhaps", obj(path=TEXT), obj(closed=True), "doubtful",
     "path: a sends it perhaps, b does not take it"),
    ("as a whole", OUT, False, "cannot", "a sends it always, b does not take it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("outputs", "inputs", "verdict", "text"), [row[1:] for row in CASES], ids=[r[0] for r in CASES]
)
def test_a_plain_edge(outputs, inputs, verdict, text):
    assert found(node("a", "b", outputs=outputs), node("b", inputs=inputs)) == [("a", "b", "plain", verdict, text)]


def test_inputs_of_their_own_are_not_judged():
    """Whatever a Send carries, no annotation tells of it."""
    edges = found(node("a", "c", outputs=OUT, next=("c", "b")), node("b", inputs=obj("x", x=NUMBER)), node("c"))
    assert edges == [("a", "c", "plain", "unknown", ""), ("a", "b", "own", "unknown", "")]


@pytest.mark.parametrize(
    ("inputs", "verdict", "text"),
    [
        (obj("error inputs", error=obj("message", message=TEXT), inputs=obj()), "fits", ""),
        (obj("who", who=TEXT), "cannot", "who: mend requires it (string), FlowKit never sends it"),
        (obj("error", error=TEXT), "cannot", "error: FlowKit sends object, mend takes string"),
        (obj("error", closed=True, error=obj()), "cannot", "inputs: FlowKit sends it always, mend does not take it"),
        (None, "unknown", ""),
    ],
)
def test_a_node_that_stands_in_for_a_failure(inputs, verdict, text):
    edges = found(node("a", on_error="mend"), node("mend", inputs=inputs))
    assert edges == [("a", "mend", "on_error", verdict, text)]


def test_what_stands_in_for_a_failure_gets_what_the_core_sends():
    for error in (wire.Error(type="T", message="m", traceback="…"), wire.Error(type="T")):
        kept = making.encode_error(error, "n", UUID(int=1))
        Draft202012Validator(FAILURE).validate({"error": codec.loads(kept), "inputs": {}})


def test_a_name_that_nobody_provides():
    nodes = (node("a", "mesure"), node("measure"), node("measures"))
    says = "no file provides node 'mesure'; there is measure and measures"
    assert found(*nodes) == [("a", "mesure", "plain", "cannot", says)]
    says = "no worker has announced node 'mesure'; there is measure and measures"
    assert found(*nodes, complete=False) == [("a", "mesure", "plain", "doubtful", says)]
    assert found(node("a", "zz")) == [("a", "zz", "plain", "cannot", "no file provides node 'zz'")]
    assert found(node("a", on_error="zz"))[0][3] == "cannot"
    says = "the file of b cannot be loaded"
    assert found(node("a", "b"), broken={"b": ""}) == [("a", "b", "plain", "unknown", says)]


def test_what_is_not_declared():
    assert not_declared(wire.NodeInfo(name="a")) == ["inputs", "outputs", "next"]
    assert not_declared(node("a", next=())) == ["inputs"], "of outputs that nobody gets, nobody asks"
    assert not_declared(node("a", "b", outputs=OUT, inputs=OUT)) == []
    assert not_declared(node("a", "b", outputs=OUT, inputs=OUT, others=True)) == ["next"]


def test_what_is_reached():
    nodes = {one.name: one for one in (node("a", "b"), node("b", "a", on_error="c"), node("d", "a"))}
    assert reached(nodes, ["a"]) == ["a", "b", "c"]
    assert reached(nodes, ["d", "c"]) == ["d", "c", "a", "b"]
    assert reached(nodes, []) == []


def test_a_foreign_announcement_is_read_as_far_as_it_goes():
    odd = wire.NodeInfo.model_validate(
        {"name": "a", "schemas": {"outputs": 3}, "next": ["b", "b"], "plain": ["b", "c"]}
    )
    assert [row[:4] for row in found(odd, node("b", inputs=OUT), node("c", inputs=OUT))] == [
        ("a", "b", "plain", "fits"),
        ("a", "c", "plain", "fits"),
    ]
