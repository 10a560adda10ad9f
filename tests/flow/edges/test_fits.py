"""Whether data can fit: a table, and no clash that a value contradicts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowkit.flow.edges.fits import STRICT, SURE, Reading, clash
from flowkit.flow.edges.schema import MORE

INTEGER, NUMBER, TEXT, NULL, FLAG = ({"type": kind} for kind in ("integer", "number", "string", "null", "boolean"))
PLAIN = Reading(converting=False)


def obj(required: str = "", *, closed: bool = False, **properties: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties, "required": required.split()}
    return made | ({"additionalProperties": False} if closed else {})


def array(items: Any, **words: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **words}


TREE = {
    "$ref": "#/$defs/Tree",
    "$defs": {"Tree": obj("value", value=INTEGER, children=array({"$ref": "#/$defs/Tree"}))},
}
TREE_OF_TEXT = {
    "$ref": "#/$defs/Tree",
    "$defs": {"Tree": obj("value", value=TEXT, children=array({"$ref": "#/$defs/Tree"}))},
}
LIST_OF_TREES = {"$defs": TREE["$defs"], **obj("trees", trees=array({"$ref": "#/$defs/Tree"}, minItems=1))}
LIST_OF_TEXT = {"$defs": TREE_OF_TEXT["$defs"], **obj("trees", trees=array({"$ref": "#/$defs/Tree"}))}

CANNOT = [
    ("types", obj("a", a=TEXT), obj("a", a=array(True)), ("a", "string", "array")),
    ("a number is no text", obj("a", a=NUMBER), obj("a", a=TEXT), ("a", "number", "string")),
    ("missing", obj("a", closed=True, a=TEXT), obj("b", b=TEXT), ("b", "nothing", "string")),
    ("missing inside", obj("a", a=obj(closed=True)), obj("a", a=obj("b c", b=TEXT)), ("a.b", "nothing", "string")),
    ("not taken", obj("a", a=TEXT), obj(closed=True, b=TEXT), ("a", "string", "nothing")),
    ("sent always, taken maybe", obj("a", a=NULL), obj(a=TEXT), ("a", "null", "string")),
    ("enums", obj("a", a={"enum": ["x", "y"]}), obj("a", a={"enum": ["z"]}), ("a", '"x" or "y"', '"z"')),
    ("const", obj("a", a={"const": 3}), obj("a", a={"const": 4}), ("a", "3", "4")),
    ("true is not 1", obj("a", a={"const": [True]}), obj("a", a={"const": [1]}), ("a", "[true]", "[1]")),
    ("const and range", obj("a", a={"const": 3}), obj("a", a=INTEGER | {"minimum": 4}), ("a", "3", "integer from 4")),
    (
        "ranges",
        obj("a", a=NUMBER | {"maximum": 3}),
        obj("a", a=INTEGER | {"exclusiveMinimum": 3}),
        ("a", "number up to 3", "integer over 3"),
    ),
    (
        "lengths",
        obj("a", a=TEXT | {"maxLength": 2}),
        obj("a", a=TEXT | {"minLength": 3}),
        ("a", "string up to 2 characters", "string from 3 characters"),
    ),
    (
        "items",
        obj("a", a=array(TEXT, minItems=1)),
        obj("a", a=array(NULL)),
        ("a[]", "string", "null"),
    ),
    (
        "tuples",
        obj("a", a={"type": "array", "prefixItems": [TEXT, TEXT], "minItems": 2, "maxItems": 2}),
        obj("a", a={"type": "array", "prefixItems": [TEXT, NULL], "minItems": 2}),
        ("a[1]", "string", "null"),
    ),
    ("too few", array(TEXT, maxItems=1), array(TEXT, minItems=2), ("", "array up to 1 items", "array from 2 items")),
    ("null", obj("a", a={"anyOf": [TEXT, NULL]}), obj("a", a=array(True)), ("a", "string or null", "array")),
    (
        "none of the choices",
        obj("a", a={"anyOf": [obj("x", x=NULL), NULL]}),
        obj("a", a=obj("x", x=TEXT)),
        ("a.x", "null", "string"),
    ),
    ("no choice of theirs", obj("a", a=NUMBER), obj("a", a={"oneOf": [TEXT, NULL]}), ("a", "number", "string or null")),
    ("all of", obj("a", a={"allOf": [NUMBER | {"minimum": 3}, {}]}), obj("a", a=NUMBER | {"maximum": 2}), None),
    ("trees", obj("t", t=NULL), obj("t", t={"$ref": "#"}), ("t", "null", "object")),
    ("inside a tree", LIST_OF_TREES, LIST_OF_TREES | obj("trees", trees=array(NULL)), ("trees[]", "object", "null")),
    ("nothing fits never", False, True, ("", "nothing", "anything")),
    ("stands beside a reference", {"$ref": "#/$defs/A", "type": "null", "$defs": {"A": {}}}, TEXT, None),
    ("of a closed one, a maybe", obj(closed=True, a=NULL), obj("a", a=TEXT), ("a", "null", "string")),
]

MAY = [
    ("the same", obj("a", a=TEXT), obj("a", a=TEXT)),
    ("an integer is a number", obj("a", a=INTEGER), obj("a", a=NUMBER)),
    ("a number may be an integer", obj("a", a=NUMBER), obj("a", a=INTEGER)),
    ("3.0 is an integer", obj("a", a={"const": 3.0}), obj("a", a=INTEGER)),
    ("an open one may have more", obj("a", a=TEXT), obj("b", b=TEXT)),
    ("patterns may have it", {"type": "object", "patternProperties": {"b": TEXT}, "additionalProperties": False},
     obj("b", b=TEXT)),
    ("what may be left out", obj(a=TEXT), obj(a=NULL)),
    ("an empty list", obj("a", a=array(TEXT)), obj("a", a=array(NULL))),
    ("one of the choices", obj("a", a={"anyOf": [TEXT, NULL]}), obj("a", a={"anyOf": [NULL, NUMBER]})),
    ("one of the values", obj("a", a={"enum": ["x", 1]}), obj("a", a=INTEGER)),
    ("nullable", obj("a", a=TEXT | {"nullable": True}), obj("a", a=NULL)),
    ("trees", TREE, TREE),
    ("a tree without children", TREE | {"x": 1}, {"$ref": "#/$defs/T", "$defs": {"T": obj("value", value=NUMBER)}}),
    ("goes round", {"$ref": "#"}, {"$ref": "#"}),
    ("no such reference", {"$ref": "#/$defs/None"}, TEXT),
    ("elsewhere", {"$ref": "https://example.org/x.json"}, TEXT),
    ("ends that touch", NUMBER | {"maximum": 3}, NUMBER | {"minimum": 3}),
    ("anything", True, TEXT),
    ("nothing is said", {}, {}),
]  # fmt: skip

CONVERTED = [
    ("text to a number", TEXT, INTEGER),
    ("text to yes or no", TEXT, FLAG),
    ("yes or no to a number", FLAG, INTEGER),
    ("seconds to a date", INTEGER, TEXT | {"format": "date-time"}),
    ("by name to a tuple", obj(), {"type": "array", "prefixItems": [TEXT]}),
    ("stripped", TEXT | {"minLength": 5}, TEXT | {"maxLength": 3}),
    ("twice to a set", array(TEXT, minItems=2), array(TEXT, maxItems=1, uniqueItems=True)),
    ("what takes more", NULL, TEXT | {MORE: True}),
]

UNREADABLE: list[Any] = [
    {"type": "text"}, {"type": 3}, {"type": []}, {"properties": [1]}, {"required": "a"}, {"required": [1]},
    {"anyOf": {}}, {"anyOf": []}, {"allOf": 1}, {"enum": 1}, {"minimum": "1"}, {"items": [1]}, {"$ref": 1},
    {"$ref": "#/$defs/a/b"}, {"$defs": 1, "$ref": "#/$defs/a"}, {"additionalProperties": 1}, 3, None, "x", [],
    {"exclusiveMinimum": True}, {"prefixItems": 1}, {"minItems": -3},
]  # fmt: skip


@pytest.mark.parametrize(("sent", "taken", "says"), [row[1:] for row in CANNOT], ids=[row[0] for row in CANNOT])
def test_what_cannot_fit(sent, taken, says):
    found = clash(sent, taken)
    assert found is not None
    if says is not None:
        assert (found.path, found.sent, found.taken) == says


@pytest.mark.parametrize(("sent", "taken"), [row[1:] for row in MAY], ids=[row[0] for row in MAY])
def test_what_may_fit(sent, taken):
    assert clash(sent, taken) is None
    assert clash(sent, taken, PLAIN) is None


@pytest.mark.parametrize(("sent", "taken"), [row[1:] for row in CONVERTED], ids=[row[0] for row in CONVERTED])
def test_what_fits_when_it_is_converted(sent, taken):
    assert clash(sent, taken, SURE) is None
    assert clash(sent, taken, STRICT) is not None


def test_what_deserves_a_look():
    assert clash(obj(a=TEXT), obj(a=NULL), STRICT) is not None
    assert clash(obj("a", a=array(TEXT)), obj("a", a=array(NULL)), STRICT) is not None
    assert clash(obj(a=TEXT), obj(closed=True), STRICT) is not None
    assert clash(obj(a=TEXT), obj(b=NULL), STRICT) is None


@pytest.mark.parametrize("schema", UNREADABLE, ids=str)
def test_what_is_not_understood_is_anything(schema):
    """From a foreign worker: it may not be our schema, and it must not stop a check."""
    for reading in (SURE, STRICT):
        assert clash(schema, {"type": "object"}, reading) is None
        assert clash(obj("a", a=TEXT), obj("a", a=schema), reading) is None


def test_deep_and_wide_schemas_come_to_an_end():
    deep: Any = TEXT
    for _ in range(180):
        deep = obj("a", a=deep)
    assert clash(deep, deep) is None
    choices: Any = {"anyOf": [TEXT, NULL]}
    for _ in range(40):
        choices = {"anyOf": [{"anyOf": [choices, choices]}, choices]}
    assert clash(choices, array(True)) is None, "given up, and no proof"
    wide = {"anyOf": [obj("k", k={"const": number}) for number in range(300)]}
    assert clash(wide, wide) is None


# Random schemas, and values of both

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.5, 1.0, -1.5]), st.sampled_from("ab")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=4,
)
KINDS = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
LEAVES = st.one_of(
    st.booleans(),
    st.just({"$ref": "#"}),
    st.sampled_from("AB").map(lambda name: {"$ref": f"#/$defs/{name}"}),
    VALUES.map(lambda value: {"const": value}),
    st.lists(SCALARS, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    KINDS.map(lambda kind: {"type": kind}),
    st.lists(KINDS, min_size=1, max_size=2, unique=True).map(lambda kinds: {"type": kinds}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={word: st.integers(-2, 2) for word in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")},
    ),
    st.fixed_dictionaries({}, optional={"minLength": st.integers(0, 2), "maxLength": st.integers(0, 2)}),
)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
                "required": st.lists(st.sampled_from("abc"), unique=True),
                "additionalProperties": inner,
                "patternProperties": inner.map(lambda schema: {"^a": schema}),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={
                "items": inner,
                "prefixItems": several,
                "minItems": st.integers(0, 2),
                "maxItems": st.integers(0, 2),
            },
        ),
        st.fixed_dictionaries(
            {}, optional={"anyOf": several, "oneOf": several, "allOf": several, "type": KINDS, "not": inner}
        ),
    )


SCHEMAS = st.recursive(LEAVES, _larger, max_leaves=6)


@st.composite
def whole_schemas(draw: st.DrawFn) -> dict[str, Any]:
    definitions = {name: draw(SCHEMAS) for name in "AB"}
    schema = draw(SCHEMAS)
    return {"$defs": definitions, **(schema if isinstance(schema, dict) else {"allOf": [schema]})}


def fits(schema: Any, value: Any) -> bool:
    try:
        return Draft202012Validator(schema).is_valid(value)
    except BaseException as error:
        # A schema that refers to itself, and to nothing else. When the validator happens to be inside its map of types,
        # which is written in Rust, the end of the stack is a panic there.
        if isinstance(error, RecursionError) or type(error).__name__ == "PanicException":
            return False
        raise


@settings(max_examples=150, deadline=None)
@given(whole_schemas(), whole_schemas(), st.lists(VALUES, min_size=1, max_size=25))
def test_a_value_that_fits_both_contradicts_a_clash(sent, taken, values):
    found = clash(sent, taken, PLAIN)
    event("clash" if found else "no clash")
    assume(found is not None)
    assert clash(sent, taken, STRICT) is not None, "who reads more strictly finds no less"
    for value in values:
        assert not (fits(sent, value) and fits(taken, value)), (found, value)


@settings(max_examples=100, deadline=None)
@given(whole_schemas(), st.lists(VALUES, min_size=1, max_size=10))
def test_what_fits_itself_does_not_clash_with_itself(schema, values):
    if any(fits(schema, value) for value in values):
        assert clash(schema, schema, PLAIN) is None
        assert clash(schema, schema, SURE) is None
