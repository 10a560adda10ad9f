"""JSON Schema as it comes from anywhere: what is not understood is read as "anything".

A schema is read as *parts*, all of which a value has to fit: ``$ref`` and ``allOf`` are resolved into them. What is
left out here (``not``, ``if``, ``format``, ``pattern``, …) would only narrow what fits, so that a proof that two
schemas have no value in common stays one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

MORE = "x-flowkit-takes-more"  # keyword: validators or aliases take values that this schema does not tell of
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
MOST = 1_000  # values that are compared, each with each: of more nothing is said
_NAMED = ("$defs", "definitions")


class Range(NamedTuple):
    """Numbers or lengths from ``low`` to ``high``; ``open``: one of the ends is not among them."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __and__(self, other: Range) -> Range:
        low, open_low = max((self.low, self.open_low), (other.low, other.open_low))
        high, closed_high = min((self.high, not self.open_high), (other.high, not other.open_high))
        return Range(low, high, open_low, not closed_high)

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return self.low > self.high or (self.low == self.high and (self.open_low or self.open_high))


class Part(NamedTuple):
    """One schema without references, beside the schema that its references point into."""

    schema: dict[str, Any]
    root: Any

    @property
    def types(self) -> frozenset[str]:
        """The types of JSON that it allows; a number may be an integer."""
        if self.values is not None:
            return frozenset(map(type_of, self.values))
        said = self.schema.get("type")
        named = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        if not named or any(name not in TYPES for name in named):
            return frozenset(TYPES)
        return frozenset(named) | ({"null"} if self.schema.get("nullable") is True else frozenset())

    @property
    def values(self) -> list[Any] | None:
        """The only values that it allows; None: it does not name them."""
        if "const" in self.schema:
            return [self.schema["const"]]
        named = self.schema.get("enum")
        return named if isinstance(named, list) and len(named) <= MOST else None

    @property
    def properties(self) -> dict[str, Any]:
        """What it says of named properties."""
        named = self.schema.get("properties")
        return named if isinstance(named, dict) else {}

    @property
    def required(self) -> list[str]:
        """Properties that every object has."""
        named = self.schema.get("required")
        return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []

    @property
    def numbers(self) -> Range:
        """The numbers that it allows."""
        return (
            Range(low=self._number("minimum", -math.inf), high=self._number("maximum", math.inf))
            & Range(low=self._number("exclusiveMinimum", -math.inf), open_low=True)
            & Range(high=self._number("exclusiveMaximum", math.inf), open_high=True)
        )

    def lengths(self, of: str) -> Range:
        """How long a value may be; ``of`` is ``Length`` or ``Items``."""
        return Range(low=max(self._number(f"min{of}", 0), 0), high=self._number(f"max{of}", math.inf))

    def property(self, name: str) -> Any:
        """The schema of one property."""
        if name in self.properties:
            return self.properties[name]
        return True if self.schema.get("patternProperties") else self.schema.get("additionalProperties", True)

    def item(self, index: int) -> Any:
        """The schema of one item of an array."""
        first = self.schema.get("prefixItems")
        if isinstance(first, list) and index < len(first):
            return first[index]
        items = self.schema.get("items", True)
        return True if isinstance(items, list) else items  # a list there is of an older draft

    def _number(self, keyword: str, default: float) -> float:
        value = self.schema.get(keyword)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else default


class Parts(NamedTuple):
    """What a value has to fit: each of ``all``, and one of each list in ``choices``."""

    all: list[Part]
    choices: list[list[Any]]
    never: bool = False  # nothing fits


def parts(schema: Any, root: Any) -> Parts:
    """Resolve one schema.

    Args:
        schema: it.
        root: the whole schema that it stands in.
    """
    found = Parts([], [])
    seen: set[int] = set()
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if one is False:
            return Parts([], [], never=True)
        if not isinstance(one, dict) or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += _referred(one, root)
        found.choices.extend(choice for word in ("anyOf", "oneOf") if isinstance(choice := one.get(word), list))
        found.all.append(Part(one, root))
    return found


def _referred(schema: dict[str, Any], root: Any) -> Iterator[Any]:
    every = schema.get("allOf")
    yield from every if isinstance(every, list) else ()
    if isinstance(reference := schema.get("$ref"), str):
        yield resolve(reference, root)


def resolve(reference: str, root: Any) -> Any:
    """What ``#`` or ``#/$defs/Name`` stands for; anything, for what points elsewhere."""
    if reference == "#":
        return root
    where, _, name = reference.removeprefix("#/").partition("/")
    if not reference.startswith("#/") or where not in _NAMED or not isinstance(root, dict):
        return True
    named = root.get(where)
    name = name.replace("~1", "/").replace("~0", "~")
    return named.get(name, True) if isinstance(named, dict) else True


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON: 1 is 1.0, and no boolean."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def type_of(value: Any) -> str:
    """The type of a value, the narrowest one: 3.0 is an integer."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "integer" if value == int(value) else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
